"""Pointwise, depthwise, pointwise: the three-way form, which mixes channels on both sides of the filters."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar, final

from torch import nn

from convsmith.algebra import Form, ThreeWay
from convsmith.blocks.base import Block, Factored, depthwise, keep_variance, registered, steps_above
from convsmith.blocks.parameters import count
from convsmith.kernels.spec import ConvSpec


@registered
@final
@dataclass(frozen=True)
class Cp(Factored):
    """C -> r maps, one filter each, r -> N; r (s^2 C + K + N) multiply-accumulates per output pixel at stride s.

    r: terms of the canonical polyadic decomposition W[n, c, k] = sum_r a[n, r] b[r, c] d[r, k].

    >>> Cp(r=6).build(ConvSpec(8, 16)).depthwise
    Conv2d(6, 6, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=6, bias=False)
    """

    name: ClassVar[str] = "cp"
    r: int = count()

    def misfit(self, conv: ConvSpec) -> str | None:
        """More terms than the pairs of the two smaller dimensions of N x C x K, which represent every weight."""
        full = _full(conv)
        return f"r={self.r} is more than {full}, where the block is exact" if self.r > full else None

    def dearer(self, conv: ConvSpec) -> list[Block]:
        """More terms, an eighth of the channels at a time, while that is cheaper than the convolution."""
        taps, channels = prod(conv.kernel), conv.in_channels + conv.out_channels
        even = taps * conv.in_channels * conv.out_channels // (channels + taps)
        return [Cp(r) for r in steps_above(self.r, conv, min(even, _full(conv)))]

    def kernels(self, conv: ConvSpec) -> dict[str, nn.Module]:
        """`reduce` C -> r, `depthwise` with the geometry, `pointwise` with the bias; no bias before the padding."""
        return {
            "reduce": keep_variance(conv.pointwise(conv.in_channels, self.r)),
            "depthwise": keep_variance(depthwise(conv, self.r, self.r)),
            "pointwise": conv.pointwise(self.r, conv.out_channels, conv.bias),
        }

    def form(self, conv: ConvSpec) -> Form:
        """As many terms as maps."""
        return ThreeWay(self.r)


def _full(conv: ConvSpec) -> int:
    smallest, middle, _ = sorted((conv.in_channels, conv.out_channels, prod(conv.kernel)))
    return smallest * middle
