"""A net for every op: what autograd finds in it judges the op's rule."""

from specimens.base import MAP, Call, Join, Specimen, behind, conv
from specimens.convolutions import CONVOLUTIONS
from specimens.elementwise import ELEMENTWISE
from specimens.maps import MAPS
from specimens.products import PRODUCTS
from specimens.shapes import SHAPES

SPECIMENS = CONVOLUTIONS | ELEMENTWISE | MAPS | PRODUCTS | SHAPES

__all__ = ["MAP", "SPECIMENS", "Call", "Join", "Specimen", "behind", "conv"]
