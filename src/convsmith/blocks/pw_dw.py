"""Pointwise, then depthwise: channels are mixed on the larger map, filters chosen per output channel."""

from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from convsmith.algebra import Form, PointwiseFirst
from convsmith.blocks.base import Block, Factored, depthwise, keep_variance, rank_misfit, ranks_above, registered
from convsmith.blocks.parameters import count
from convsmith.kernels.spec import ConvSpec


@registered
@final
@dataclass(frozen=True)
class PwDw(Factored):
    """A pointwise kernel C -> r N, then a depthwise r N -> N; r N (s^2 C + K) multiply-accumulates per output pixel.

    r: pointwise maps per output channel; at r = min(K, C) it represents every convolution. s: the stride.

    >>> PwDw(r=2).build(ConvSpec(8, 16)).depthwise
    Conv2d(32, 16, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=16, bias=False)
    """

    name: ClassVar[str] = "pw-dw"
    r: int = count(1)

    def misfit(self, conv: ConvSpec) -> str | None:
        """More maps per output channel than min(K, C)."""
        return rank_misfit(self.r, conv, conv.in_channels)

    def dearer(self, conv: ConvSpec) -> list[Block]:
        """Higher multipliers, up to the exact one."""
        return [PwDw(r) for r in ranks_above(self.r, conv, conv.in_channels)]

    def kernels(self, conv: ConvSpec) -> dict[str, nn.Module]:
        """`pointwise`, then `depthwise` with the geometry and the bias.

        A bias between the two would not reach the padding, so the pointwise has none; without one it commutes with
        every padding mode.
        """
        middle = self.r * conv.out_channels
        pointwise = keep_variance(conv.pointwise(conv.in_channels, middle))
        return {"pointwise": pointwise, "depthwise": depthwise(conv, middle, conv.out_channels, conv.bias)}

    def form(self, conv: ConvSpec) -> Form:
        """Rank r per output channel."""
        return PointwiseFirst(self.r)
