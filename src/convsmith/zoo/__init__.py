"""Named nets as tables of stages, and the one builder that makes modules of them."""

# these fill NETS, ecanet from what the nets before it have entered
from convsmith.zoo import addressnet, dicenet, inverted, mobilenet, resnet, shufflenet, vgg  # isort: skip
from convsmith.zoo import ecanet  # isort: skip
from convsmith.zoo.builder import IMAGENET, ConvNet, build, default_input, input_of
from convsmith.zoo.records import NETS, NetForms, NetRecord, StageRecord

__all__ = [
    "IMAGENET",
    "NETS",
    "ConvNet",
    "NetForms",
    "NetRecord",
    "StageRecord",
    "addressnet",
    "build",
    "default_input",
    "dicenet",
    "ecanet",
    "input_of",
    "inverted",
    "mobilenet",
    "resnet",
    "shufflenet",
    "vgg",
]
