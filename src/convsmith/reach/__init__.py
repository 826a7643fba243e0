"""Which inputs an element sees: exact windows and channels, by sets and intervals."""

from convsmith.reach.extent import Extent
from convsmith.reach.reach import PLACES, Reach

__all__ = ["PLACES", "Extent", "Reach"]
