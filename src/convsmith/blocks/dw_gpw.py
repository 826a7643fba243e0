"""Depthwise, then grouped pointwise: each group of outputs sees only its own group of inputs."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from convsmith.algebra import Factors, Form
from convsmith.blocks.base import Factored, count, depthwise_first, only, read, registered
from convsmith.kernels.spec import ConvSpec


@registered
@final
@dataclass(frozen=True)
class DwGpw(Factored):
    """A depthwise kernel, then a pointwise one in g groups; C (K + N / g) multiply-accumulates per output pixel.

    g: groups; each output reaches C / g input channels, however many of these blocks are stacked.

    >>> DwGpw(g=4).build(ConvSpec(8, 16)).pointwise
    Conv2d(8, 16, kernel_size=(1, 1), stride=(1, 1), groups=4, bias=False)
    """

    name: ClassVar[str] = "dw-gpw"
    g: int = count()

    def misfit(self, conv: ConvSpec) -> str | None:
        """Groups that do not divide both channel counts."""
        if conv.in_channels % self.g or conv.out_channels % self.g:
            return f"g={self.g} does not divide its {conv.in_channels} input and {conv.out_channels} output channels"
        return None

    def kernels(self, conv: ConvSpec) -> dict[str, nn.Module]:
        """`depthwise` with the geometry, grouped `pointwise` with the bias."""
        pointwise = nn.Conv2d(conv.in_channels, conv.out_channels, 1, groups=self.g, bias=conv.bias)
        return depthwise_first(conv, 1, pointwise)

    def form(self, conv: ConvSpec) -> Form:
        """Rank 1 per input channel within its group; the weights between groups are lost."""
        return only(self._reads(conv), conv)

    def weights(self, conv: ConvSpec, factors: Factors) -> tuple[Tensor, ...]:
        """The pointwise without what it does not connect."""
        return read(factors, self._reads(conv))

    def _reads(self, conv: ConvSpec) -> Tensor:
        """The input channels that each output reads, (n, cg)."""
        width = conv.in_channels // self.g
        group = torch.arange(conv.out_channels) // (conv.out_channels // self.g)
        return group[:, None] * width + torch.arange(width)  # (n, 1) + (cg) -> (n, cg)
