"""What a zoo net is made of, as frozen records: a stem, stages of equal units, a head, and its style of calls."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod

import torch.nn.functional as F
from torch import Tensor, nn

from convsmith.registry import Registry

Part = Callable[[Tensor], Tensor]  # one step of a forward pass: a module, or a plain function


@dataclass(frozen=True)
class Style:
    """What makes a net's ReLUs (`inner`; `joined` after a residual sum) and global pool (of a given side).

    Either a module or a plain function: the outputs are equal. But a counter that visits modules, ptflops among them,
    sees modules alone, so the operations printed for a published net depend on it.
    """

    inner: Callable[[], Part]
    joined: Callable[[], Part]
    pool: Callable[[int], Part]


def _relu_function() -> Part:
    return F.relu


def _pool_function(side: int) -> Part:
    return partial(F.adaptive_avg_pool2d, output_size=side)


MODULES = Style(nn.ReLU, nn.ReLU, nn.AdaptiveAvgPool2d)
FUNCTIONS = Style(_relu_function, _relu_function, _pool_function)
MODULES_EXCEPT_JOINED = Style(nn.ReLU, _relu_function, nn.AdaptiveAvgPool2d)
MODULES_EXCEPT_POOL = Style(nn.ReLU, nn.ReLU, _pool_function)

# (input channels, output channels, stride, style) -> what a stage repeats; some take more by name, for `partial`
Unit = Callable[..., nn.Module]
Activation = Callable[[int], nn.Module]  # channels -> what follows a normalization
Classifier = Callable[[int, int], nn.Module]  # (features, classes) -> what maps the flat pooled map to logits


@dataclass(frozen=True)
class StageRecord:
    """`blocks` units of one output `width`; the first one also changes the width and strides, the others keep both.

    With `pool` a 2x2 max pool ends the stage.
    """

    unit: Unit
    width: int
    blocks: int
    stride: int = 1
    pool: bool = False


@dataclass(frozen=True)
class StemRecord:
    """The first convolution with its normalization and activation; with `pool` a 3x3 max pool of stride 2 follows.

    Without an `activation` it is the ReLU of the net's style.
    """

    width: int
    kernel: int = 3
    stride: int = 1
    pool: bool = False
    activation: Activation | None = None


@dataclass(frozen=True)
class LastRecord:
    """A 1x1 convolution with its normalization and activation, between the last stage and the pool."""

    width: int
    activation: Activation | None = None


@dataclass(frozen=True)
class HeadRecord:
    """The module `name`, made by `classifier`, on the features of a map pooled to `side` x `side`."""

    name: str
    side: int = 1
    classifier: Classifier = nn.Linear


@dataclass(frozen=True)
class NetRecord:
    """One form of a net; without a `stem` its layers run one after another in a flat `features`, else in `layer1`, ...

    `last` stands behind the stages of a net with a stem, if anything does.

    >>> from convsmith.zoo import NETS
    >>> NETS["vgg16"].small.blocks_per_stage, NETS["vgg16"].small.total_stride
    ((2, 2, 3, 3, 3), 32)
    """

    stem: StemRecord | None
    stages: tuple[StageRecord, ...]
    head: HeadRecord
    style: Style
    last: LastRecord | None = None

    @property
    def blocks_per_stage(self) -> tuple[int, ...]:
        """Units in each stage."""
        return tuple(stage.blocks for stage in self.stages)

    @property
    def total_stride(self) -> int:
        """Input pixels per pixel of the last map, along one side."""
        stem = 1 if self.stem is None else self.stem.stride * (2 if self.stem.pool else 1)
        return stem * prod(stage.stride * (2 if stage.pool else 1) for stage in self.stages)


@dataclass(frozen=True)
class NetForms:
    """The form for `small` images (shorter side under 64 pixels), the one for `large` ones, and what is built unasked.

    `side` is the default input side in pixels, `small_classes` the number of classes of the small form.
    """

    small: NetRecord
    large: NetRecord
    side: int = 224
    small_classes: int = 10


NETS = Registry[NetForms]("zoo net")
