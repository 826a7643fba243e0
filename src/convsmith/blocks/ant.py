"""The block of ANTNet: an inverted residual with attention on its wide map and a grouped projection."""

from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from convsmith.blocks.base import registered
from convsmith.blocks.parameters import count
from convsmith.blocks.unit import Unit, spatial, undivided
from convsmith.kernels import SqueezeExcite, normalized, pointwise
from convsmith.kernels.spec import ConvSpec


@registered
@final
@dataclass(frozen=True)
class Ant(Unit):
    """1x1 to t C channels, depthwise, attention, 1x1 in groups; t C (C s^2 + K + N / g) and 2 t C floor(t C / r) MACs.

    t: expansion; r: reduction of the attention; g: groups of the projection; s: the stride.
    From Xiong et al., arXiv 1904.03775.

    >>> Ant(t=2, g=4).build(ConvSpec(8, 16)).pointwise
    Conv2d(16, 16, kernel_size=(1, 1), stride=(1, 1), groups=4, bias=False)
    """

    name: ClassVar[str] = "ant"
    t: int = count(2)
    r: int = count(8)
    g: int = count(1)

    def misfit(self, conv: ConvSpec) -> str | None:
        """Groups that do not divide the wide and the output channels."""
        return undivided(self.g, expanded=self.t * conv.in_channels, output=conv.out_channels)

    def kernels(self, conv: ConvSpec) -> dict[str, nn.Module]:
        """ReLU6 behind the first two, the attention behind the second."""
        wide = self.t * conv.in_channels
        return {
            "expand": normalized(pointwise(conv.in_channels, wide), nn.ReLU6()),
            "depthwise": spatial(conv, wide, nn.ReLU6(), SqueezeExcite(wide, self.r)),
            "pointwise": pointwise(wide, conv.out_channels, self.g, bias=conv.bias),
        }
