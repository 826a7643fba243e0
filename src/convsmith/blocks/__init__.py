"""Replacement blocks for standard convolutions, one a file."""

from convsmith.blocks.base import BLOCKS, Block, Carried, parse_block
from convsmith.blocks.channel import ChannelFirst
from convsmith.blocks.cp import Cp
from convsmith.blocks.dw_gpw import DwGpw
from convsmith.blocks.dw_pw import DwPw
from convsmith.blocks.dw_rpw import DwRpw
from convsmith.blocks.pw_dw import PwDw
from convsmith.blocks.rpw import RollingPointwise, decompositions, rolling_pointwise, windows
from convsmith.blocks.spatial import SpatialPair
from convsmith.blocks.tucker import TuckerTwo

__all__ = [
    "BLOCKS",
    "Block",
    "Carried",
    "ChannelFirst",
    "Cp",
    "DwGpw",
    "DwPw",
    "DwRpw",
    "PwDw",
    "RollingPointwise",
    "SpatialPair",
    "TuckerTwo",
    "decompositions",
    "parse_block",
    "rolling_pointwise",
    "windows",
]
