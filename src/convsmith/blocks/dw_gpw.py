"""Depthwise, then grouped pointwise: each group of outputs sees only its own group of inputs."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from convsmith.blocks.base import registered
from convsmith.blocks.parameters import count
from convsmith.blocks.partly_mixed import PartlyMixed
from convsmith.kernels.spec import Convolution, ConvSpec


@registered
@final
@dataclass(frozen=True)
class DwGpw(PartlyMixed):
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

    def pointwise(self, conv: ConvSpec) -> Convolution:
        """The grouped kernel."""
        return conv.pointwise(conv.in_channels, conv.out_channels, conv.bias, self.g)

    def reads(self, conv: ConvSpec) -> Tensor:
        """The input channels of its own group, (n, cg)."""
        width = conv.in_channels // self.g
        group = torch.arange(conv.out_channels) // (conv.out_channels // self.g)
        return group[:, None] * width + torch.arange(width)  # (n, 1) + (cg) -> (n, cg)
