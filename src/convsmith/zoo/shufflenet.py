"""ShuffleNet V2 (Ma et al., ECCV 2018), in the layout of its authors' code; the small form in that of CIFAR nets."""

from functools import partial

from torch import nn

from convsmith.kernels import depthwise, normalized, pointwise
from convsmith.zoo.heads import dropped, unbiased
from convsmith.zoo.joins import SplitEvenOdd, SplitHead, TwoBranches
from convsmith.zoo.records import (
    MODULES,
    NETS,
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


def _main(channels: int, middle: int, width: int, stride: int) -> nn.Sequential:
    """1x1, depthwise, 1x1."""
    return nn.Sequential(
        *normalized(pointwise(channels, middle), nn.ReLU()),
        *normalized(depthwise(middle, stride=stride)),
        *normalized(pointwise(middle, width), nn.ReLU()),
    )


def _side(channels: int, width: int, stride: int) -> nn.Sequential:
    """Depthwise, 1x1."""
    return nn.Sequential(
        *normalized(depthwise(channels, stride=stride)), *normalized(pointwise(channels, width), nn.ReLU())
    )


def authors_unit(channels: int, width: int, stride: int, style: Style) -> nn.Module:
    """The side branch of a striding unit keeps the input's width, the main one makes the rest; split by even and odd.

    Only so the published 146 M multiply-accumulates come out; two equal branches make 144.9 M.
    """
    half = width // 2
    if stride == 1 and channels == width:
        return SplitEvenOdd(_main(half, half, half, 1))
    side, main = _side(channels, channels, stride), _main(channels, half, width - channels, stride)
    return TwoBranches(side, main, mixer=nn.Identity())


def equal_unit(channels: int, width: int, stride: int, style: Style) -> nn.Module:
    """Both branches of a striding unit make half of the width, and channels are shuffled behind every unit."""
    half = width // 2
    if stride == 1 and channels == width:
        return SplitHead(half, _main(half, half, half, 1))
    return TwoBranches(_side(channels, half, stride), _main(channels, half, half, stride))


def _net(unit: Unit, widths: tuple[int, ...], last: int, stem: StemRecord, classifier: Classifier) -> NetRecord:
    stages = tuple(StageRecord(unit, w, n, stride=2) for w, n in zip(widths, (4, 8, 4), strict=True))
    return NetRecord(stem, stages, HeadRecord("fc", classifier=classifier), MODULES, LastRecord(last))


def _forms(widths: tuple[int, ...], last: int, classifier: Classifier) -> NetForms:
    return NetForms(
        small=_net(equal_unit, widths, last, StemRecord(24), nn.Linear),
        large=_net(authors_unit, widths, last, StemRecord(24, stride=2, pool=True), classifier),
    )


NETS.add("shufflenetv2-0.5", _forms((48, 96, 192), 1024, unbiased))
NETS.add("shufflenetv2-1.0", _forms((116, 232, 464), 1024, unbiased))
NETS.add("shufflenetv2-1.5", _forms((176, 352, 704), 1024, unbiased))
NETS.add("shufflenetv2-2.0", _forms((244, 488, 976), 2048, partial(dropped, 0.2, bias=False)))
