"""The DiCE unit: dimension-wise convolution and dimension-wise fusion (Mehta et al., TPAMI 2020; arXiv 1906.03516)."""

from math import gcd
from typing import final

from torch import Tensor, nn

from convsmith.kernels.convolutions import grouped, normalized, pointwise
from convsmith.kernels.dimwise import DimConv
from convsmith.kernels.gates import ChannelGate
from convsmith.kernels.shuffle import ChannelShuffle


@final
class Dice(nn.Module):
    """DimConv, then DimFuse: the three planes of a channel fused (local), then a spatial kernel times a gate (global).

        params = 36 C + 9 (H0 + W0) + 2 C floor(C / 4),   MACs = 39 C H W + 2 C floor(C / 4)     for C -> C

    at the base map (H0, W0) = size. Normalization and PReLU come before the planes are interleaved, as in the authors'
    code; their paper draws them behind, which moves parameters but changes no function.

    >>> sum(p.numel() for p in Dice(16, 16, (28, 28)).parameters())
    1208
    """

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.planes = DimConv(inputs, size)
        self.norm = nn.BatchNorm2d(3 * inputs)
        self.act = nn.PReLU(3 * inputs)
        self.interleave = ChannelShuffle(3)
        self.local = normalized(pointwise(3 * inputs, inputs, groups=inputs), nn.PReLU(inputs))
        self.spatial = normalized(grouped(inputs, outputs, gcd(inputs, outputs)), nn.PReLU(outputs))
        self.gate = ChannelGate(inputs, inputs // 4, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, inputs, h, w) -> (b, outputs, h, w)."""
        x = self.local(self.interleave(self.act(self.norm(self.planes(x)))))
        y: Tensor = self.spatial(x) * self.gate(x)
        return y
