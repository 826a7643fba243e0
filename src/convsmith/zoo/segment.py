"""The semantic segmentation net around DiCENet, and the key map that reads its authors' published weights.

From the code of Mehta et al. (TPAMI 2020; arXiv 1906.03516), whose ImageNet backbones survive in these files only:
the stem and the first two stages.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import ceil, gcd
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convsmith.errors import FileError
from convsmith.kernels import ChannelShuffle, depthwise, grouped, normalized, pointwise
from convsmith.text import times
from convsmith.zoo.builder import ConvNet, build
from convsmith.zoo.dicenet import WIDTHS

STEPS = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2")  # of the backbone that are used
LEVELS = ("act1", "maxpool", "layer1")  # those whose output the decoder sees as well
SCALES = (2.0, 1.5, 1.0, 0.5, 0.1)
SMALLEST = 5  # pixels a side of the smallest map in a pyramid
DECODED = (64, 48, 32)

# Key of a published tensor -> key here, rules applied one after another.
KEY_MAP: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^base_net\.level1\.cbr\.0\.", "backbone.conv1."),
    (r"^base_net\.level1\.cbr\.1\.", "backbone.bn1."),
    (r"^base_net\.level1\.cbr\.2\.", "backbone.act1."),
    (r"^base_net\.level3\.0\.", "backbone.layer1.0.0."),  # the strided block,
    (r"^base_net\.level3\.1\.", "backbone.layer1.0.1."),  # then the unit that is counted as the first
    (r"^base_net\.level4\.0\.", "backbone.layer2.0.0."),
    (r"^base_net\.level4\.1\.", "backbone.layer2.0.1."),
    (r"^base_net\.level3\.(\d+)\.", lambda m: f"backbone.layer1.{int(m[1]) - 1}."),
    (r"^base_net\.level4\.(\d+)\.", lambda m: f"backbone.layer2.{int(m[1]) - 1}."),
    (r"\.left_layer\.", ".left."),
    (r"\.(right_layer|layer_right)\.", ".right."),
    (r"\.conv_channel\.", ".planes.depth."),
    (r"\.conv_(height|width)\.", r".planes.\1.conv."),
    (r"\.br_act\.br\.0\.", ".norm."),
    (r"\.br_act\.br\.1\.", ".act."),
    (r"\.weight_avg_layer\.cbr\.", ".local."),
    (r"\.(proj_layer|expansion_layer)\.cbr\.", ".spatial."),
    (r"\.linear_comb_layer\.1\.", ".gate.reduce."),
    (r"\.linear_comb_layer\.3\.", ".gate.expand."),
    (r"\.wt_layer\.1\.", ".gate."),
    (r"^eff_pool_16x16\.", "pools.0."),
    (r"^eff_pool_32x32\.", "pools.1."),
    (r"^eff_pool_64x64\.", "pools.2."),
    (r"^eff_pool_128x128\.", "pools.3."),
    (r"^proj_enc_32x32\.", "skips.0."),
    (r"^proj_enc_64x64\.", "skips.1."),
    (r"^proj_enc_128x128\.", "skips.2."),
    (r"^bu_br_32x32\.", "norms.0."),
    (r"^bu_br_64x64\.", "norms.1."),
    (r"^bu_br_128x128\.", "norms.2."),
    (r"\.projection_layer\.cbr\.", ".project."),
    (r"\.merge_layer\.0\.br\.", ".merge."),
    (r"\.merge_layer\.2\.cbr\.", ".fuse."),
    (r"\.merge_layer\.3\.", ".expand."),
    (r"\.br\.br\.", ".norm."),
    (r"\.cbr\.", "."),
)


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state with the keys of a `DicenetSegmenter`.

    >>> list(renamed({"base_net.level4.3.layer_right.1.conv_width.weight": torch.zeros(1)}))
    ['backbone.layer2.2.right.1.planes.width.conv.weight']
    """
    return {_rename(key): tensor for key, tensor in state.items()}


def _rename(key: str) -> str:
    for pattern, replacement in KEY_MAP:
        key = re.sub(pattern, replacement, key)
    return key


def load_backbone(net: ConvNet, state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Load the stem and the first two stages of a published segmentation net; answers the keys left as they were.

    net: a DiCENet of the same scale, in its large form. Raises ConvsmithError where a tensor does not fit.
    """
    prefix = "backbone."
    mine = {key.removeprefix(prefix): t for key, t in renamed(state).items() if key.startswith(prefix)}
    own = net.state_dict()
    for key, tensor in mine.items():
        if key not in own or own[key].shape != tensor.shape:
            got = times(tensor.shape)
            raise FileError(f"{key}: the file's {got} do not fit this net; build the DiCENet of the file's scale.")
    if not mine:
        raise FileError("The file holds no DiCENet backbone; give the state of a published segmentation net.")
    net.load_state_dict(mine, strict=False)
    return tuple(key for key in own if key not in mine)


@final
class PyramidPool(nn.Module):
    """Depthwise kernels on the map at five sizes, fused: what stands between a level of the decoder and the next.

    The last one of a decoder has a bias, and no normalization behind.
    """

    def __init__(self, channels: int, middle: int, width: int, last: bool) -> None:
        super().__init__()
        count = len(SCALES)
        self.project = normalized(pointwise(channels, middle), nn.PReLU(middle))
        self.stages = nn.ModuleList(depthwise(middle) for _ in SCALES)
        self.merge = _norm(count * middle)
        self.shuffle = ChannelShuffle(count)
        self.fuse = normalized(grouped(count * middle, middle, middle), nn.PReLU(middle))
        self.expand = pointwise(middle, width, bias=last)
        self.norm = nn.Identity() if last else _norm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, h, w) -> (b, width, h, w)."""
        x = self.project(x)
        seen = [_at_scale(x, scale, kernel) for scale, kernel in zip(SCALES, self.stages, strict=True)]
        y: Tensor = self.norm(self.expand(self.fuse(self.shuffle(self.merge(torch.cat(seen, 1))))))
        return y


def _at_scale(x: Tensor, scale: float, kernel: nn.Module) -> Tensor:
    """A kernel on the map at another size: averages where the map shrinks, bilinear where it grows."""
    height, width = x.shape[2:]
    size = max(ceil(height * scale), SMALLEST), max(ceil(width * scale), SMALLEST)
    if scale < 1:
        return _bilinear(kernel(F.adaptive_avg_pool2d(x, size)), (height, width))
    grown = x if scale == 1 else _bilinear(x, size)
    return F.adaptive_avg_pool2d(kernel(grown), (height, width))


def _bilinear(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, list(size), mode="bilinear", align_corners=True)


def _norm(width: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(width), nn.PReLU(width))


@final
class Skip(nn.Module):
    """A level of the backbone on its way to the decoder: a grouped 3x3 kernel times a gate."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.spatial = normalized(grouped(channels, width, gcd(channels, width)), nn.PReLU(width))
        self.gate = pointwise(channels, width)

    def forward(self, x: Tensor) -> Tensor:
        """(b, channels, h, w) -> (b, width, h, w)."""
        y: Tensor = self.spatial(x) * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        return y


@final
class DicenetSegmenter(nn.Module):
    """DiCENet without its last stage, and a decoder that joins four levels; one logit per class and pixel.

    scale: of the DiCENet, as "0.2". Raises ConvsmithError for an unknown one.
    """

    def __init__(self, scale: str, classes: int) -> None:
        super().__init__()
        net = build(f"dicenet-{scale}")
        self.backbone = nn.Sequential(OrderedDict((step, net.get_submodule(step)) for step in STEPS))
        stem, first, second, *_ = WIDTHS[scale]
        middle = min(classes // 2, 16)
        self.pools = nn.ModuleList(
            PyramidPool(inputs, middle, width, last=width == classes)
            for inputs, width in pairwise((second, *DECODED, classes))
        )
        self.skips = nn.ModuleList(Skip(c, w) for c, w in zip((first, stem, stem), DECODED, strict=True))
        self.norms = nn.ModuleList(_norm(w) for w in DECODED)

    def forward(self, x: Tensor) -> Tensor:
        """Images (b, 3, h, w), sides of whole multiples of 16 -> logits (b, classes, h, w)."""
        levels, y = [], x
        for name, step in self.backbone.named_children():
            y = step(y)
            levels += [y] if name in LEVELS else []
        first, *pools = self.pools
        y = first(y)
        for level, pool, skip, norm in zip(reversed(levels), pools, self.skips, self.norms, strict=True):
            y = pool(norm(_bilinear(y, level.shape[2:]) + skip(level)))
        return _bilinear(y, x.shape[2:])
