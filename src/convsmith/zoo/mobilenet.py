"""MobileNet (Howard et al., arXiv 1704.04861, 2017), width 1."""

from functools import partial

from convsmith.zoo.records import (
    FUNCTIONS,
    MODULES,
    NETS,
    HeadRecord,
    NetForms,
    NetRecord,
    StageRecord,
    StemRecord,
    Style,
    Unit,
)
from convsmith.zoo.units import SeparableUnit


def _mobilenet(unit: Unit, stem_stride: int, head: str, style: Style) -> NetRecord:
    stages = (
        StageRecord(unit, 64, 1),
        StageRecord(unit, 128, 2, stride=2),
        StageRecord(unit, 256, 2, stride=2),
        StageRecord(unit, 512, 6, stride=2),
        StageRecord(unit, 1024, 2, stride=2),
    )
    return NetRecord(StemRecord(32, stride=stem_stride), stages, HeadRecord(head), style)


# The CIFAR-10 net of the published tables calls ReLU and pool as functions: 47.18 M operations, else 47.59 M.
NETS.add(
    "mobilenet",
    NetForms(_mobilenet(SeparableUnit, 1, "linear", FUNCTIONS), _mobilenet(SeparableUnit, 2, "fc", MODULES)),
)

# The published CIFAR-100 size (3.32 M) needs a bias in every 1x1 convolution, 5,952 in all; without, it is 3.31 M.
_biased = _mobilenet(partial(SeparableUnit, bias=True), 1, "linear", MODULES)
NETS.add("mobilenet-wa", NetForms(_biased, _biased, side=32, small_classes=100))
