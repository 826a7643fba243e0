"""Dimension-wise kernels: depthwise convolutions over the three planes of a tensor, channels being an axis of two.

From DiCENet (Mehta et al., TPAMI 2020; arXiv 1906.03516).
"""

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convsmith.kernels.convolutions import depthwise


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring a map (b, c, h, w) to `size`: bilinear from corner to corner where it grows, else averages over bins.

    >>> resize(torch.tensor([0.0, 1.0, 3.0]).view(1, 1, 1, 3), (1, 5)).flatten().tolist()
    [0.0, 0.5, 1.0, 2.0, 3.0]
    """
    if tuple(x.shape[2:]) == size:
        return x
    if x.shape[2] < size[0] or x.shape[3] < size[1]:
        return F.interpolate(x, size, mode="bilinear", align_corners=True)
    return F.adaptive_avg_pool2d(x, size)


@final
class DimensionWise(nn.Module):
    """One 3x3 filter for every row of the map (dim=2), over channels and columns, or for every column (dim=3).

    The filters belong to the `size` rows (columns) of a base map. A map of another height (width) is resized along that
    axis alone, and back. Zeros surround the first and the last channel, so that their order matters. 9 x size x C x
    (the other side) multiply-accumulates.

    >>> rows = DimensionWise(7, dim=2)
    >>> rows.conv.weight.shape, rows(torch.zeros(1, 16, 9, 5)).shape
    (torch.Size([7, 1, 3, 3]), torch.Size([1, 16, 9, 5]))
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.conv = depthwise(size)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        height, width = x.shape[2:]
        size = self.conv.in_channels
        x = resize(x, (size, width) if self.dim == 2 else (height, size))
        # the axis whose filters these are takes the place of the channels, and goes back
        x = self.conv(x.transpose(1, self.dim)).transpose(1, self.dim)
        return resize(x, (height, width))

    def extra_repr(self) -> str:
        """Say what torch prints between the brackets."""
        return f"{self.conv.in_channels}, dim={self.dim}"


@final
class DimConv(nn.Module):
    """The three branches side by side, C -> 3 C: by channel over the map, by row, and by column.

    size: (height, width) of the base map.
    """

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.depth = depthwise(channels)
        self.height = DimensionWise(size[0], dim=2)
        self.width = DimensionWise(size[1], dim=3)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, 3 c, h, w)."""
        return torch.cat([self.depth(x), self.height(x), self.width(x)], 1)
