"""Kernel kinds as modules: what blocks and nets are composed of."""

from convsmith.kernels.convolutions import depthwise, grouped, normalized, pointwise
from convsmith.kernels.dice import Dice
from convsmith.kernels.dimwise import DimConv, DimensionWise, resize
from convsmith.kernels.gates import ChannelGate, Eca, SqueezeExcite, adaptive_kernel, start_as_identity
from convsmith.kernels.rolling import windows
from convsmith.kernels.shift import AddressShift, ChannelShift, Newest, ShortcutShift, append_shift
from convsmith.kernels.shuffle import ChannelShuffle

__all__ = [
    "AddressShift",
    "ChannelGate",
    "ChannelShift",
    "ChannelShuffle",
    "Dice",
    "DimConv",
    "DimensionWise",
    "Eca",
    "Newest",
    "ShortcutShift",
    "SqueezeExcite",
    "adaptive_kernel",
    "append_shift",
    "depthwise",
    "grouped",
    "normalized",
    "pointwise",
    "resize",
    "start_as_identity",
    "windows",
]
