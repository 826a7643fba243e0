"""Named nets as tables of stages, and the one builder that makes modules of them."""

from convsmith.zoo import mobilenet, resnet, vgg  # these fill NETS
from convsmith.zoo.builder import ConvNet, build, default_input
from convsmith.zoo.records import NETS, NetForms, NetRecord, StageRecord

__all__ = [
    "NETS",
    "ConvNet",
    "NetForms",
    "NetRecord",
    "StageRecord",
    "build",
    "default_input",
    "mobilenet",
    "resnet",
    "vgg",
]
