"""Several depthwise filters a channel and the pointwise kernel behind them, in the ways that compute the same.

Weights lie as those of one grouped convolution, filters of a channel next to each other, whatever the way: state dicts
fit each other. They are put in order when they are used, which an export does once and for all.
"""

from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor, nn

from convsmith.kernels.spec import ConvSpec


class _Kernel(nn.Conv2d):
    """A convolution of a specification, for channels that have `filters` each."""

    def __init__(self, spec: ConvSpec, filters: int) -> None:
        sizes: Any = (spec.kernel, spec.stride, spec.padding, spec.dilation)
        mode: Any = spec.padding_mode
        super().__init__(spec.in_channels, spec.out_channels, *sizes, spec.groups, spec.bias, mode)  # type: ignore[call-arg]
        self.filters = filters

    def run(self, x: Tensor, weight: Tensor) -> Tensor:
        """Convolve by a weight made of the own one, padded as the specification says."""
        y: Tensor = self._conv_forward(x, weight, self.bias)
        return y


@final
class TiledDepthwise(_Kernel):
    """The input r times over, then one filter for each of the r C channels: the plain kernel that runtimes know best.

    Output j C + c is the j-th filter of channel c.

    >>> TiledDepthwise(ConvSpec(8, 16), 2)(torch.zeros(1, 8, 4, 4)).shape
    torch.Size([1, 16, 4, 4])
    """

    def __init__(self, conv: ConvSpec, filters: int) -> None:
        channels = filters * conv.in_channels
        super().__init__(
            replace(conv, in_channels=channels, out_channels=channels, groups=channels, bias=False), filters
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, r c, oh, ow)."""
        return self.run(torch.cat([x] * self.filters, 1), _turned(self.weight, self.filters, 0))


@final
class SplitDepthwise(_Kernel):
    """r plain depthwise convolutions side by side, and their outputs one after another: those of `TiledDepthwise`."""

    def __init__(self, conv: ConvSpec, filters: int) -> None:
        channels = conv.in_channels
        super().__init__(replace(conv, out_channels=filters * channels, groups=channels, bias=False), filters)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, r c, oh, ow)."""
        weights = (self.weight[j :: self.filters] for j in range(self.filters))  # each (c, 1, kh, kw)
        return torch.cat([self.run(x, weight) for weight in weights], 1)


@final
class TurnedPointwise(_Kernel):
    """A pointwise kernel behind one of these, its weight as behind one grouped convolution."""

    def __init__(self, conv: ConvSpec, filters: int) -> None:
        super().__init__(
            ConvSpec(filters * conv.in_channels, conv.out_channels, (1, 1), padding=(0, 0), bias=conv.bias), filters
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, r c, h, w) -> (n, N, h, w)."""
        return self.run(x, _turned(self.weight, self.filters, 1))


def _turned(weight: Tensor, filters: int, axis: int) -> Tensor:
    """Channels in the order c r + j to j C + c."""
    sizes = (weight.shape[axis] // filters, filters)
    shape = (*weight.shape[:axis], *sizes, *weight.shape[axis + 1 :])
    return weight.view(shape).transpose(axis, axis + 1).reshape(weight.shape)
