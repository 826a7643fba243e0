"""ResNet (He et al., CVPR 2016): the ImageNet nets, their CIFAR forms, and the paper's own narrow CIFAR nets."""

from functools import partial

from convsmith.zoo.records import (
    FUNCTIONS,
    MODULES_EXCEPT_JOINED,
    NETS,
    HeadRecord,
    NetForms,
    NetRecord,
    StageRecord,
    StemRecord,
    Style,
    Unit,
)
from convsmith.zoo.units import BasicUnit, Bottleneck, PaddedShortcut

SMALL_STEM = StemRecord(64)
LARGE_STEM = StemRecord(64, kernel=7, stride=2, pool=True)


def _resnet(
    unit: Unit, widths: tuple[int, ...], blocks: tuple[int, ...], stem: StemRecord, head: str, style: Style
) -> NetRecord:
    strides = (1, *(2 for _ in widths[1:]))
    stages = tuple(StageRecord(unit, w, n, s) for w, n, s in zip(widths, blocks, strides, strict=True))
    return NetRecord(stem, stages, HeadRecord(head), style)


def _two_forms(unit: Unit, widths: tuple[int, ...], blocks: tuple[int, ...]) -> NetForms:
    """CIFAR-10 form that calls every ReLU and pool as a function, ImageNet form with torchvision's names.

    By modules CIFAR-10 ResNet-50 has 1304.7 M operations, printed 1,300; with its ReLUs it would print 1,310. ImageNet
    ResNet-50 has 4116.4 M, printed 4,120; with no ReLU it would print 4,110.
    """
    return NetForms(
        small=_resnet(unit, widths, blocks, SMALL_STEM, "linear", FUNCTIONS),
        large=_resnet(unit, widths, blocks, LARGE_STEM, "fc", MODULES_EXCEPT_JOINED),
    )


def _narrow(depth: int) -> NetForms:
    """ResNet of 6 n + 2 layers with shortcuts that have no parameters."""
    unit = partial(BasicUnit, changed=PaddedShortcut)
    blocks = ((depth - 2) // 6,) * 3
    net = _resnet(unit, (16, 32, 64), blocks, StemRecord(16), "linear", FUNCTIONS)
    return NetForms(net, net, side=32)


NETS.add("resnet18", _two_forms(BasicUnit, (64, 128, 256, 512), (2, 2, 2, 2)))
NETS.add("resnet34", _two_forms(BasicUnit, (64, 128, 256, 512), (3, 4, 6, 3)))
NETS.add("resnet50", _two_forms(Bottleneck, (256, 512, 1024, 2048), (3, 4, 6, 3)))
NETS.add("resnet101", _two_forms(Bottleneck, (256, 512, 1024, 2048), (3, 4, 23, 3)))
for _depth in (20, 32, 44, 56):
    NETS.add(f"resnet{_depth}", _narrow(_depth))

# CIFAR-100 ResNet-50 is printed with 1,310 M operations: 1306.05 M with the units' inner ReLUs, 1304.88 M without.
_wide = _resnet(Bottleneck, (256, 512, 1024, 2048), (3, 4, 6, 3), SMALL_STEM, "linear", MODULES_EXCEPT_JOINED)
NETS.add("resnet50-wa", NetForms(_wide, _wide, side=32, small_classes=100))
