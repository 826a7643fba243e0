"""The DiCE unit in a convolution's place: dimension-wise kernels, fused, then a pointwise one."""

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import ClassVar, final

from torch import nn

from convsmith.blocks.base import registered, two_dimensional
from convsmith.blocks.parameters import count_or_zero
from convsmith.blocks.unit import Unit, beyond_3x3
from convsmith.kernels import Dice, pointwise
from convsmith.kernels.spec import ConvSpec


@registered
@final
@dataclass(frozen=True)
class DiceUnit(Unit):
    """A DiCE unit on C channels, then a pointwise kernel; 39 C + C N multiply-accumulates per output pixel.

    h, w: rows and columns that its filters are for; 0, which `decompose` replaces, means those of the layer's output.
    As in DiCENet (Mehta et al., TPAMI 2020), where the map is halved an average pool stands before it.

    >>> DiceUnit(h=7, w=7).build(ConvSpec(8, 16)).pointwise
    Conv2d(8, 16, kernel_size=(1, 1), stride=(1, 1), bias=False)
    """

    name: ClassVar[str] = "dice"
    h: int = count_or_zero(0)
    w: int = count_or_zero(0)

    def on_map(self, conv: ConvSpec, size: tuple[int, ...]) -> "DiceUnit":
        """With the rows and columns of the output where they are not told."""
        if two_dimensional(conv):
            return self
        rows, columns = ((side - 1) // stride + 1 for side, stride in zip(size, conv.stride, strict=True))
        return replace(self, h=self.h or rows, w=self.w or columns)

    def misfit(self, conv: ConvSpec) -> str | None:
        """Another geometry than 3x3, and rows and columns that are not told."""
        if not (self.h and self.w):
            return "the size of its map is not told; write dice:h=..,w=.."
        return beyond_3x3(conv)

    def sequence(self, kernels: "OrderedDict[str, nn.Module]", conv: ConvSpec) -> nn.Sequential:
        """The published unit has no identity around it."""
        return nn.Sequential(kernels)

    def kernels(self, conv: ConvSpec) -> dict[str, nn.Module]:
        """`dice`, behind an average pool where the convolution strides, and `pointwise` with the bias."""
        inputs = conv.in_channels
        unit = Dice(inputs, inputs, (self.h, self.w))
        down, right = conv.stride
        pool = [] if conv.stride == (1, 1) else [nn.AvgPool2d(3, (down, right), padding=1)]
        return {
            "dice": nn.Sequential(*pool, unit),
            "pointwise": pointwise(inputs, conv.out_channels, bias=conv.bias),
        }
