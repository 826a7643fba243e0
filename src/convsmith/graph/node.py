"""One ATen call of a captured model, with its module path, its costs and its convolution."""

from dataclasses import dataclass

from convsmith.graph.call import RULES, Call, numbers
from convsmith.graph.ops import conv_padding
from convsmith.kernels.spec import ConvSpec

GETITEM = "getitem"
CONVOLUTIONS = ("aten.conv1d.", "aten.conv2d.", "aten.conv3d.")


@dataclass(frozen=True, eq=False)
class Node:
    """One call that depends on the model's input.

    `module` is the path of the innermost module that made the call; `leaf` says that this module has no children.
    `params` counts the learnable scalars first used here. `known` is false from an op without a rule on downwards.
    `loose` says that sizes depend on values, from an op that selects by them on downwards: they hold for this input.
    """

    name: str
    call: Call
    module: str
    leaf: bool
    params: int
    known: bool
    loose: bool = False

    @property
    def ruled(self) -> bool:
        """Whether the op itself has a rule."""
        return self.call.op == GETITEM or self.call.op in RULES

    @property
    def kind(self) -> str:
        """`conv`, `linear`, `matmul` or `attention` for layers, empty for the rest."""
        return RULES[self.call.op].kind if self.call.op in RULES else ""

    @property
    def macs(self) -> int:
        """Multiply-accumulates for the captured input."""
        return RULES[self.call.op].macs(self.call) if self.call.op in RULES else 0

    @property
    def ptflops(self) -> int:
        """What ptflops counts: leaf modules only, functions called in passing are not seen."""
        return RULES[self.call.op].ptflops(self.call) if self.leaf and self.call.op in RULES else 0

    def conv_spec(self) -> ConvSpec | None:
        """The convolution as plain data; None for anything but an evenly padded call of a convolution module."""
        if not self.call.op.startswith(CONVOLUTIONS) or not self.leaf:
            return None
        out, per_group, *kernel = self.call["weight"].shape
        groups = self.call["groups"]
        stride, dilation = (numbers(self.call[name], len(kernel)) for name in ("stride", "dilation"))
        if self.call["padding"] == "same" and any(d * (k - 1) % 2 for d, k in zip(dilation, kernel, strict=True)):
            return None  # padded unevenly
        padding, bias = conv_padding(self.call), self.call["bias"] is not None
        return ConvSpec(per_group * groups, out, tuple(kernel), stride, padding, dilation, groups, bias)


def is_norm(node: Node) -> bool:
    """Whether a call is a BatchNorm that keeps statistics, in evaluation a scale and a shift."""
    return node.call.op == "aten.batch_norm.default" and node.call["running_mean"] is not None
