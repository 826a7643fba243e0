"""What each ATen op does to reach and what it costs: one rule per op, and nothing else asks what an op is.

ATen's names and arguments are those that a model's forward calls, before autograd and decomposition.
"""

from convsmith.ops import convolutions, elementwise, moves, norms, pools, products, reductions, resize, shapes
from convsmith.ops.convolutions import conv_padding

__all__ = [
    "conv_padding", "convolutions", "elementwise", "moves", "norms", "pools", "products", "reductions", "resize",
    "shapes",
]  # fmt: skip
