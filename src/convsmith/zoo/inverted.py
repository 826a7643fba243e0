"""MobileNet V2 (Sandler et al., CVPR 2018) and ANTNet (Xiong et al., arXiv 1904.03775): inverted residuals."""

from collections.abc import Callable
from functools import partial
from typing import final

from torch import Tensor, nn

from convsmith.kernels import SqueezeExcite, depthwise, normalized, pointwise
from convsmith.zoo.heads import dropped
from convsmith.zoo.records import (
    MODULES,
    NETS,
    Activation,
    Classifier,
    HeadRecord,
    LastRecord,
    NetForms,
    NetRecord,
    StageRecord,
    StemRecord,
    Style,
    Unit,
)
from convsmith.zoo.units import Attention, Shortcut, projected_shortcut

WIDTHS = (16, 24, 32, 64, 96, 160, 320)
DEPTHS = (1, 2, 3, 4, 3, 3, 1)


def relu6(channels: int) -> nn.ReLU6:
    """The activation of these nets, whatever the width."""
    return nn.ReLU6()


@final
class InvertedUnit(nn.Module):
    """1x1 to `expansion` times the width, a depthwise `kernel` with the stride, and back by a linear 1x1 in `groups`.

    `squeeze` makes the attention on the wide map, `attention` the one on the narrow map before the sum. Around units
    of stride 1 goes the identity, or where the width changes what `changed` makes, if anything.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int,
        style: Style,
        expansion: int = 6,
        groups: int = 1,
        squeeze: Attention = nn.Identity,
        attention: Attention = nn.Identity,
        changed: Shortcut | None = None,
        kernel: int = 3,
        activation: Activation = relu6,
    ) -> None:
        super().__init__()
        hidden = expansion * channels
        # the first stage expands by 1: in the small form by a convolution as well
        grow = expansion > 1 or changed is not None
        self.expand = normalized(pointwise(channels, hidden), activation(hidden)) if grow else nn.Identity()
        self.depthwise = normalized(depthwise(hidden, kernel, stride), activation(hidden))
        self.squeeze = squeeze(hidden)
        self.project = normalized(pointwise(hidden, width, groups))
        self.attention = attention(width)
        self.shortcut = _shortcut(channels, width, stride, changed)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, channels, h, w) to (b, width, h / stride, w / stride)."""
        y: Tensor = self.attention(self.project(self.squeeze(self.depthwise(self.expand(x)))))
        return y if self.shortcut is None else y + self.shortcut(x)


def _shortcut(channels: int, width: int, stride: int, changed: Shortcut | None) -> nn.Module | None:
    if stride == 1 and channels == width:
        return nn.Identity()
    return changed(channels, width, 1) if stride == 1 and changed is not None else None


UnitOfStage = Callable[[int], Unit]  # number of the stage, from 0 -> its unit


def _small(unit: UnitOfStage) -> NetRecord:
    """It strides less, and projects around units of stride 1 that change the width."""

    def projecting(stage: int) -> Unit:
        return partial(unit(stage), changed=projected_shortcut)

    return _net(projecting, (1, 1, 2, 2, 1, 2, 1), 1, nn.Linear)


def _large(unit: UnitOfStage) -> NetRecord:
    return _net(unit, (1, 2, 2, 2, 1, 2, 1), 2, partial(dropped, 0.2))


def _net(unit: UnitOfStage, strides: tuple[int, ...], stem_stride: int, classifier: Classifier) -> NetRecord:
    table = zip(WIDTHS, DEPTHS, strides, strict=True)
    stages = tuple(StageRecord(unit(stage), width, n, stride) for stage, (width, n, stride) in enumerate(table))
    stem = StemRecord(32, stride=stem_stride, activation=relu6)
    return NetRecord(stem, stages, HeadRecord("classifier", classifier=classifier), MODULES, LastRecord(1280, relu6))


def _mobilenet(stage: int) -> Unit:
    return partial(InvertedUnit, expansion=6 if stage else 1)


def _antnet(groups: int, bias: bool, stage: int) -> Unit:
    """Attention on the wide map, its ratio growing with depth, and a projection in groups but for the first stage.

    Grouping that one too would take 59 M multiply-accumulates off the ungrouped net; printed is a difference of 55 M.
    """
    ratio = (8, 8, 12, 16, 24, 32, 64)[stage]
    squeeze = partial(SqueezeExcite, ratio=ratio, bias=bias)
    return partial(_mobilenet(stage), groups=groups if stage else 1, squeeze=squeeze)


def _antnet_forms(groups: int) -> NetForms:
    return NetForms(small=_small(partial(_antnet, groups, False)), large=_large(partial(_antnet, groups, True)))


NETS.add("mobilenetv2", NetForms(small=_small(_mobilenet), large=_large(_mobilenet)))
NETS.add("antnet", _antnet_forms(1))
NETS.add("antnet-g2", _antnet_forms(2))
