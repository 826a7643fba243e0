"""Which inputs an element sees: exact windows and channels, by sets and intervals."""

from convsmith.reach.reach import PLACES, Extent, Reach

__all__ = ["PLACES", "Extent", "Reach"]
