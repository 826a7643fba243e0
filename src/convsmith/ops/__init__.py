"""What each ATen op does to reach and what it costs: one rule per op, and nothing else asks what an op is.

Reaches leave the batch dimension out, so dimension d of a tensor is dimension d - 1 here. ATen's names and arguments
are those that a model's forward calls, before autograd takes them apart.
"""

from convsmith.ops import elementwise, pools, products, shapes  # these fill RULES
from convsmith.ops.elementwise import ACTIVATIONS
from convsmith.ops.products import conv_padding

__all__ = ["ACTIVATIONS", "conv_padding", "elementwise", "pools", "products", "shapes"]
