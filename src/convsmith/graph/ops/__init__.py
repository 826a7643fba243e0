"""What each ATen op does to reach and what it costs: one rule per op, and nothing else asks what an op is.

Names and arguments are those of the ATen calls that a model's forward makes, before autograd takes them apart.
"""

from convsmith.graph.ops import (
    convolutions,
    elementwise,
    moves,
    norms,
    pools,
    products,
    reductions,
    resize,
    shapes,
    writes,
)
from convsmith.graph.ops.convolutions import conv_padding
from convsmith.graph.ops.elementwise import ACTIVATIONS

__all__ = [
    "ACTIVATIONS", "conv_padding", "convolutions", "elementwise", "moves", "norms", "pools", "products", "reductions",
    "resize", "shapes", "writes",
]  # fmt: skip
