"""DiCENet (Mehta et al., TPAMI 2020; arXiv 1906.03516): units of two branches around dimension-wise convolutions.

Filters belong to rows and columns of a base map, which follows from a base image of 224 (small form: 32) pixels a side.
Images of other sizes are resized within the units, so that parameters never depend on the input.
"""

from functools import partial

from torch import nn

from convsmith.kernels import Dice, depthwise, normalized, pointwise
from convsmith.zoo.heads import grouped_features
from convsmith.zoo.joins import SplitHead, TwoBranches
from convsmith.zoo.records import MODULES, NETS, HeadRecord, NetForms, NetRecord, StageRecord, StemRecord, Style

DEPTHS = (3, 7, 3)
WIDTHS = {  # scale: stem, three stages, features
    "0.1": (8, 16, 32, 64, 512),
    "0.2": (16, 32, 64, 128, 1024),
    "0.5": (24, 48, 96, 192, 1024),
    "0.75": (24, 86, 172, 344, 1024),
    "1.0": (24, 116, 232, 464, 1024),
    "1.25": (24, 144, 288, 576, 1024),
    "1.5": (24, 176, 352, 704, 1024),
    "1.75": (24, 210, 420, 840, 1024),
    "2.0": (24, 244, 488, 976, 1024),
    "2.4": (24, 278, 556, 1112, 1280),
    "3.0": (48, 384, 768, 1536, 2048),
}


def _pointwise(channels: int, width: int) -> nn.Sequential:
    return normalized(pointwise(channels, width), nn.PReLU(width))


def _half(channels: int, width: int, side: int) -> SplitHead:
    """Half of the input's channels pass, the others become the rest of the width."""
    keep = round(0.5 * channels)
    new = width - keep
    return SplitHead(keep, nn.Sequential(_pointwise(channels - keep, new), Dice(new, new, (side, side))))


def _strided(channels: int, side: int) -> TwoBranches:
    """Twice the width on half the map; the DiCE unit already works on the smaller map."""
    left = normalized(depthwise(channels, stride=2), nn.PReLU(channels))
    return TwoBranches(
        nn.Sequential(left, _pointwise(channels, channels)),
        nn.Sequential(
            nn.AvgPool2d(3, stride=2, padding=1), Dice(channels, channels, (side, side)), _pointwise(channels, channels)
        ),
    )


def unit(channels: int, width: int, stride: int, style: Style, side: int) -> nn.Module:
    """The first unit of a stage stands behind the strided block, and changes the width; side: of the base map."""
    if stride == 1:
        return _half(channels, width, side)
    return nn.Sequential(_strided(channels, side), _half(2 * channels, width, side))


def dicenet(scale: str, stem: StemRecord, first: int) -> NetRecord:
    """The record for one of WIDTHS; first: side of the base map in the first stage, halved from stage to stage."""
    _, *widths, features = WIDTHS[scale]
    stages = tuple(
        StageRecord(partial(unit, side=first >> level), width, depth, stride=2)
        for level, (width, depth) in enumerate(zip(widths, DEPTHS, strict=True))
    )
    head = HeadRecord("fc", classifier=partial(grouped_features, features, 4, 0.1 if float(scale) <= 1 else 0.2))
    return NetRecord(stem, stages, head, MODULES)


def _forms(scale: str) -> NetForms:
    width = WIDTHS[scale][0]
    return NetForms(
        small=dicenet(scale, StemRecord(width, activation=nn.PReLU), first=16),
        large=dicenet(scale, StemRecord(width, stride=2, pool=True, activation=nn.PReLU), first=28),
    )


for _scale in WIDTHS:
    NETS.add(f"dicenet-{_scale}", _forms(_scale))
