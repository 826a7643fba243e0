"""Replacement blocks for standard convolutions, one a file."""

from convsmith.blocks.address import Address
from convsmith.blocks.ant import Ant
from convsmith.blocks.attention import AddEca, AddOn, AddSe
from convsmith.blocks.base import BLOCKS, Block, Carried, parse_block
from convsmith.blocks.channel import ChannelFirst
from convsmith.blocks.cp import Cp
from convsmith.blocks.dice import DiceUnit
from convsmith.blocks.dw_gpw import DwGpw
from convsmith.blocks.dw_pw import DwPw
from convsmith.blocks.dw_rpw import DwRpw
from convsmith.blocks.kinds import Kernel, channels, parts
from convsmith.blocks.pw_dw import PwDw
from convsmith.blocks.rpw import RollingPointwise, decompositions, rolling_pointwise
from convsmith.blocks.sequence import LONGEST, KernelSequence
from convsmith.blocks.shuffle import Shuffle
from convsmith.blocks.spatial import SpatialPair
from convsmith.blocks.tucker import TuckerTwo
from convsmith.blocks.unit import Unit
from convsmith.kernels import windows

__all__ = [
    "BLOCKS",
    "LONGEST",
    "AddEca",
    "AddOn",
    "AddSe",
    "Address",
    "Ant",
    "Block",
    "Carried",
    "ChannelFirst",
    "Cp",
    "DiceUnit",
    "DwGpw",
    "DwPw",
    "DwRpw",
    "Kernel",
    "KernelSequence",
    "PwDw",
    "RollingPointwise",
    "Shuffle",
    "SpatialPair",
    "TuckerTwo",
    "Unit",
    "channels",
    "decompositions",
    "parse_block",
    "parts",
    "rolling_pointwise",
    "windows",
]
