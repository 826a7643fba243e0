"""Named nets as tables of stages, and the one builder that makes modules of them."""

from convsmith.zoo import mobilenet, resnet, vgg  # these fill NETS
from convsmith.zoo.builder import IMAGENET, ConvNet, build, default_input, input_of
from convsmith.zoo.records import NETS, NetForms, NetRecord, StageRecord

__all__ = [
    "IMAGENET",
    "NETS",
    "ConvNet",
    "NetForms",
    "NetRecord",
    "StageRecord",
    "build",
    "default_input",
    "input_of",
    "mobilenet",
    "resnet",
    "vgg",
]
