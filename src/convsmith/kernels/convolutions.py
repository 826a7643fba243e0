"""The kinds that torch's own convolution computes: depthwise, pointwise and grouped."""

from torch import nn

from convsmith.kernels.spec import Convolution


def depthwise(channels: int, kernel: int = 3, stride: int = 1, multiplier: int = 1, bias: bool = False) -> nn.Conv2d:
    """DW: `multiplier` filters of an odd size for each channel; k^2 C multiply-accumulates per output pixel each.

    >>> depthwise(8, stride=2)
    Conv2d(8, 8, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), groups=8, bias=False)
    """
    return grouped(channels, channels * multiplier, channels, kernel, stride, bias)


def pointwise(inputs: int, outputs: int, groups: int = 1, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """PW, and GPW(g) with `groups`: mixes the channels of each group; C N / g multiply-accumulates per output pixel.

    >>> pointwise(8, 16, groups=4)
    Conv2d(8, 16, kernel_size=(1, 1), stride=(1, 1), groups=4, bias=False)
    """
    return nn.Conv2d(inputs, outputs, 1, stride, groups=groups, bias=bias)


def grouped(inputs: int, outputs: int, groups: int, kernel: int = 3, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """GC(g): a convolution of odd size within each group; k^2 C N / g multiply-accumulates per output pixel.

    >>> grouped(8, 16, groups=2, kernel=5)
    Conv2d(8, 16, kernel_size=(5, 5), stride=(1, 1), padding=(2, 2), groups=2, bias=False)
    """
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=bias)


def normalized(conv: Convolution, *after: nn.Module) -> nn.Sequential:
    """A convolution, its batch normalization, and what follows it."""
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), *after)
