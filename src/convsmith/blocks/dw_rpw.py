"""Depthwise, then rolling pointwise: each output sees a window of inputs that overlaps its neighbour's."""

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor, nn

from convsmith.algebra import Factors, Form
from convsmith.blocks.base import Factored, count, depthwise_first, fraction, only, read, registered
from convsmith.blocks.rpw import RollingPointwise
from convsmith.kernels import windows
from convsmith.kernels.spec import ConvSpec


@registered
@final
@dataclass(frozen=True)
class DwRpw(Factored):
    """A depthwise kernel, then a rolling pointwise one; C (K + N / g) multiply-accumulates per output pixel.

    g: an output reads C / g input channels, but windows overlap, so that stacked blocks reach all;
    o: the part of a window shared with the next. From Wang et al., CIKM 2021.

    >>> DwRpw(g=2, o=0.5).build(ConvSpec(8, 16)).pointwise
    RollingPointwise(8, 16, groups=2, overlap=0.5, stride=1, bias=False)
    """

    name: ClassVar[str] = "dw-rpw"
    g: int = count()
    o: float = fraction()

    def misfit(self, conv: ConvSpec) -> str | None:
        """Groups that do not divide the input channels."""
        return (
            f"g={self.g} does not divide its {conv.in_channels} input channels" if conv.in_channels % self.g else None
        )

    def kernels(self, conv: ConvSpec) -> dict[str, nn.Module]:
        """`depthwise` with the geometry, rolling `pointwise` with the bias."""
        pointwise = RollingPointwise(conv.in_channels, conv.out_channels, self.g, self.o, bias=conv.bias)
        return depthwise_first(conv, 1, pointwise)

    def form(self, conv: ConvSpec) -> Form:
        """Rank 1 per input channel within the windows that read it; the other weights are lost."""
        return only(self._reads(conv), conv)

    def weights(self, conv: ConvSpec, factors: Factors) -> tuple[Tensor, ...]:
        """The pointwise without what it does not connect."""
        return read(factors, self._reads(conv))

    def _reads(self, conv: ConvSpec) -> Tensor:
        """The input channels that each output reads, (n, cg)."""
        return windows(conv.in_channels, conv.out_channels, self.g, self.o)
