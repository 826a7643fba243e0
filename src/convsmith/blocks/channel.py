"""Channel decomposition: fewer whole filters, and a pointwise kernel that mixes their answers."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar, final

from torch import nn

from convsmith.algebra import Channel, Form
from convsmith.blocks.base import Block, Factored, convolution, keep_variance, not_standard, registered, steps_above
from convsmith.blocks.parameters import count
from convsmith.kernels.spec import ConvSpec


@registered
@final
@dataclass(frozen=True)
class ChannelFirst(Factored):
    """A standard kernel C -> r, then a pointwise r -> N; r (C K + N) multiply-accumulates per output pixel.

    Of a 1x1 convolution it is two of lower rank.

    r: filters. From Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and Detection"
    (2015).

    >>> ChannelFirst(r=4).build(ConvSpec(8, 16)).pointwise
    Conv2d(4, 16, kernel_size=(1, 1), stride=(1, 1), bias=False)
    """

    name: ClassVar[str] = "channel"
    r: int = count()

    def unsuited(self, conv: ConvSpec) -> str | None:
        """A 1x1 kernel suits it too: what is left is its rank."""
        return not_standard(conv)

    def misfit(self, conv: ConvSpec) -> str | None:
        """More filters than the convolution's own, or than they have weights."""
        full = _full(conv)
        return f"r={self.r} is more than {full}, where the block is exact" if self.r > full else None

    def dearer(self, conv: ConvSpec) -> list[Block]:
        """More filters, an eighth of the channels at a time."""
        return [ChannelFirst(r) for r in steps_above(self.r, conv, _full(conv))]

    def kernels(self, conv: ConvSpec) -> dict[str, nn.Module]:
        """`spatial` with the geometry, `pointwise` with the bias."""
        return {
            "spatial": keep_variance(convolution(conv, conv.in_channels, self.r)),
            "pointwise": conv.pointwise(self.r, conv.out_channels, conv.bias),
        }

    def form(self, conv: ConvSpec) -> Form:
        """Rank r of the weight as a matrix."""
        return Channel(self.r)


def _full(conv: ConvSpec) -> int:
    return min(conv.out_channels, conv.in_channels * prod(conv.kernel))
