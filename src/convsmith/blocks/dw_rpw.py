"""Depthwise, then rolling pointwise: each output sees a window of inputs that overlaps its neighbour's."""

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from convsmith.blocks.base import registered, two_dimensional
from convsmith.blocks.parameters import count, fraction
from convsmith.blocks.partly_mixed import PartlyMixed
from convsmith.blocks.rpw import RollingPointwise
from convsmith.kernels import windows
from convsmith.kernels.spec import ConvSpec


@registered
@final
@dataclass(frozen=True)
class DwRpw(PartlyMixed):
    """A depthwise kernel, then a rolling pointwise one; C (K + N / g) multiply-accumulates per output pixel.

    g: an output reads C / g input channels, but windows overlap, so that stacked blocks reach all. o: the part of a
    window shared with the next. From Wang et al., CIKM 2021.

    >>> DwRpw(g=2, o=0.5).build(ConvSpec(8, 16)).pointwise
    RollingPointwise(8, 16, groups=2, overlap=0.5, stride=1, bias=False)
    """

    name: ClassVar[str] = "dw-rpw"
    g: int = count()
    o: float = fraction()

    def misfit(self, conv: ConvSpec) -> str | None:
        """Groups that do not divide the input channels."""
        if conv.in_channels % self.g:
            return f"g={self.g} does not divide its {conv.in_channels} input channels"
        return two_dimensional(conv)

    def pointwise(self, conv: ConvSpec) -> RollingPointwise:
        """The rolling kernel."""
        return RollingPointwise(conv.in_channels, conv.out_channels, self.g, self.o, bias=conv.bias)

    def reads(self, conv: ConvSpec) -> Tensor:
        """The input channels of its window, (n, cg)."""
        return windows(conv.in_channels, conv.out_channels, self.g, self.o)
