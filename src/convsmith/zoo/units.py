"""The units that stages repeat: plain, depthwise separable, basic residual and bottleneck; one tensor in, one out."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from convsmith.zoo.records import Style


def conv_relu(channels: int, width: int, stride: int, style: Style) -> nn.Sequential:
    """3x3 convolution and ReLU; the ReLU is a module whatever the style, for a sequence holds modules alone."""
    return nn.Sequential(nn.Conv2d(channels, width, 3, stride, padding=1), nn.ReLU())


def conv_bn_relu(channels: int, width: int, stride: int, style: Style) -> nn.Sequential:
    """3x3 convolution with bias, batch normalization and ReLU, all modules as in `conv_relu`.

    The bias is redundant before the normalization, yet the published VGG sizes (14,728,266 for VGG16) contain it.
    """
    return nn.Sequential(nn.Conv2d(channels, width, 3, stride, padding=1), nn.BatchNorm2d(width), nn.ReLU())


class SeparableUnit(nn.Module):
    """3x3 depthwise then 1x1 convolution, each with normalization and ReLU (MobileNet; Howard et al., 2017)."""

    def __init__(self, channels: int, width: int, stride: int, style: Style, bias: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = style.inner()
        self.conv2 = nn.Conv2d(channels, width, 1, bias=bias)
        self.bn2 = nn.BatchNorm2d(width)
        self.act2 = style.inner()

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, channels, h, w) to (b, width, h / stride, w / stride)."""
        x = self.act1(self.bn1(self.conv1(x)))
        return self.act2(self.bn2(self.conv2(x)))


class PaddedShortcut(nn.Module):
    """Shortcut without parameters, option A of He et al. (CVPR 2016): every stride-th pixel, zeros as new channels."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (width - channels) // 2
        self.after = width - channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, channels, h, w) to (b, width, h / stride, w / stride)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


def projected_shortcut(channels: int, width: int, stride: int) -> nn.Sequential:
    """1x1 convolution with normalization, option B of He et al. (CVPR 2016)."""
    return nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))


Attention = Callable[[int], nn.Module]  # channels -> what weighs them; the identity is none
Shortcut = Callable[[int, int, int], nn.Module]  # (input channels, output channels, stride) -> the way around a unit


def _way_around(channels: int, width: int, stride: int, changed: Shortcut) -> nn.Module:
    """Give the identity where the unit keeps its input's shape, else the shortcut that `changed` makes."""
    return nn.Identity() if stride == 1 and channels == width else changed(channels, width, stride)


class BasicUnit(nn.Module):
    """Two 3x3 convolutions around which a shortcut is added (ResNet-18; He et al., CVPR 2016).

    `attention` is made for the output, before the sum.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int,
        style: Style,
        changed: Shortcut = projected_shortcut,
        attention: Attention = nn.Identity,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = style.inner()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.attention = attention(width)
        self.downsample = _way_around(channels, width, stride, changed)
        self.act2 = style.joined()

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, channels, h, w) to (b, width, h / stride, w / stride)."""
        y = self.act1(self.bn1(self.conv1(x)))
        return self.act2(self.attention(self.bn2(self.conv2(y))) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions, the inner two a quarter as wide, and a shortcut (ResNet-50; He et al., CVPR 2016).

    The 3x3 carries the stride, not the first 1x1: so do the nets whose sizes and accuracies are published.
    `attention` is made for the output, before the sum.
    """

    def __init__(
        self, channels: int, width: int, stride: int, style: Style, attention: Attention = nn.Identity
    ) -> None:
        super().__init__()
        inner = width // 4
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.act1 = style.inner()
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.act2 = style.inner()
        self.conv3 = nn.Conv2d(inner, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.attention = attention(width)
        self.downsample = _way_around(channels, width, stride, projected_shortcut)
        self.act3 = style.joined()

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, channels, h, w) to (b, width, h / stride, w / stride)."""
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.act2(self.bn2(self.conv2(y)))
        return self.act3(self.attention(self.bn3(self.conv3(y))) + self.downsample(x))
