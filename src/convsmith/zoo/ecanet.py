"""ECA-Net (Wang et al., CVPR 2020): attention before the sum of every unit of ResNet and MobileNet V2.

The kernel sizes are those of the published models, set by hand; `adaptive_kernel` gives others.
"""

from dataclasses import replace
from functools import partial

from convsmith.kernels import Eca
from convsmith.zoo.records import NETS, NetForms, NetRecord


def with_eca(forms: NetForms, kernels: tuple[int, ...]) -> NetForms:
    """Both forms of a net with an ECA of the stage's kernel size in every unit."""
    return replace(forms, small=_attended(forms.small, kernels), large=_attended(forms.large, kernels))


def _attended(net: NetRecord, kernels: tuple[int, ...]) -> NetRecord:
    stages = tuple(
        replace(stage, unit=partial(stage.unit, attention=partial(Eca, kernel=kernel)))
        for stage, kernel in zip(net.stages, kernels, strict=True)
    )
    return replace(net, stages=stages)


NETS.add("eca-resnet18", with_eca(NETS["resnet18"], (3, 5, 7, 7)))
NETS.add("eca-resnet34", with_eca(NETS["resnet34"], (3, 3, 5, 7)))
NETS.add("eca-resnet50", with_eca(NETS["resnet50"], (3, 5, 5, 7)))
NETS.add("eca-resnet101", with_eca(NETS["resnet101"], (3, 3, 5, 7)))
NETS.add("eca-mobilenetv2", with_eca(NETS["mobilenetv2"], (1, 1, 1, 1, 3, 3, 3)))
