"""Tucker-2: channels reduced, a smaller standard kernel, channels restored."""

from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from convsmith.algebra import Form, Tucker
from convsmith.blocks.base import EVEN, Block, Factored, convolution, keep_variance, registered
from convsmith.blocks.parameters import count
from convsmith.kernels.spec import ConvSpec


@registered
@final
@dataclass(frozen=True)
class TuckerTwo(Factored):
    """C -> r, a standard kernel r -> s, s -> N; S^2 r C + K r s + s N multiply-accumulates per output pixel, stride S.

    From Kim et al., "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications"
    (ICLR 2016).

    >>> TuckerTwo(r=4, s=6).build(ConvSpec(8, 16)).core
    Conv2d(4, 6, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
    """

    name: ClassVar[str] = "tucker"
    r: int = count()
    s: int = count()

    def misfit(self, conv: ConvSpec) -> str | None:
        """More channels inside than outside."""
        if self.r > conv.in_channels or self.s > conv.out_channels:
            channels = f"its {conv.in_channels} input and {conv.out_channels} output channels"
            return f"r={self.r}, s={self.s} are more than {channels}"
        return None

    def dearer(self, conv: ConvSpec) -> list[Block]:
        """More channels inside, an eighth of those outside at a time."""
        pairs = (
            tuple(_part(channels, eighths) for channels in (conv.in_channels, conv.out_channels))
            for eighths in range(1, 9)
        )
        return [
            TuckerTwo(r, s)
            for r, s in dict.fromkeys(pairs)
            if r >= self.r and s >= self.s and (r, s) != (self.r, self.s)
        ]

    def kernels(self, conv: ConvSpec) -> dict[str, nn.Module]:
        """`reduce`, `core` with the geometry, `pointwise` with the bias."""
        return {
            "reduce": keep_variance(conv.pointwise(conv.in_channels, self.r)),
            "core": keep_variance(convolution(conv, self.r, self.s)),
            "pointwise": conv.pointwise(self.s, conv.out_channels, conv.bias),
        }

    def form(self, conv: ConvSpec) -> Form:
        """Ranks r of the inputs and s of the outputs."""
        return Tucker(self.r, self.s)


def _part(channels: int, eighths: int) -> int:
    """So many eighths of some channels, rounded up; a multiple of EVEN where they are."""
    step = 1 if channels % EVEN else EVEN
    return -(-channels * eighths // (8 * step)) * step
