"""Blocks that are units of published nets: with normalization and activations inside, they start untrained."""

from collections import OrderedDict
from typing import ClassVar, final

from torch import Tensor, nn

from convsmith.algebra.request import WEIGHT_ALONE, FitRequest
from convsmith.blocks.base import Block, Carried, depthwise, two_dimensional
from convsmith.errors import ShapeError
from convsmith.kernels import normalized
from convsmith.kernels.spec import Convolution, ConvSpec


@final
class Added(nn.Sequential):
    """Kernels one after another, and their result added to the input; ConvsmithError where shapes differ."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        y = x
        for kernel in self:
            y = kernel(y)
        if y.shape[1:] != x.shape[1:]:  # or torch would stretch one of them
            raise ShapeError(f"A sum needs one shape, got {tuple(x.shape[1:])} and {tuple(y.shape[1:])}.")
        return x + y


class Unit(Block):
    """A block that sees what the convolution saw but is no convolution itself, so that no weights can be carried.

    The last kernel stands alone: the normalization and the activation that followed the convolution follow it now.
    Around the kernels goes the identity where the convolution keeps the shape.
    """

    carries: ClassVar[bool] = False
    fitted: ClassVar[bool] = False

    def unsuited(self, conv: ConvSpec) -> str | None:
        """Published units are for images."""
        return super().unsuited(conv) or two_dimensional(conv)

    def sequence(self, kernels: "OrderedDict[str, nn.Module]", conv: ConvSpec) -> nn.Sequential:
        """Added to the input where the shape stays."""
        return Added(kernels) if keeps_shape(conv) else nn.Sequential(kernels)

    @final
    def carry(self, conv: Convolution, block: nn.Sequential, request: FitRequest = WEIGHT_ALONE) -> Carried:
        """Leave the block as it was built."""
        return Carried(None)


def keeps_shape(conv: ConvSpec) -> bool:
    """Whether output and input have one shape."""
    reach = tuple(d * (k - 1) for d, k in zip(conv.dilation, conv.kernel, strict=True))
    padded = tuple(2 * padding for padding in conv.padding)
    return conv.in_channels == conv.out_channels and not any(s - 1 for s in conv.stride) and padded == reach


def spatial(conv: ConvSpec, channels: int, *after: nn.Module) -> nn.Sequential:
    """A depthwise kernel with the convolution's geometry, normalized."""
    return normalized(depthwise(conv, channels, channels), *after)


def undivided(groups: int, **channels: int) -> str | None:
    """Why a pointwise kernel between these channels cannot have so many groups."""
    counted = " and ".join(f"{number} {kind}" for kind, number in channels.items())
    return f"g={groups} does not divide its {counted} channels" if any(n % groups for n in channels.values()) else None


def beyond_3x3(conv: ConvSpec) -> str | None:
    """Why kinds that exist for one geometry only do not fit."""
    if conv.kernel == (3, 3) and conv.padding == conv.dilation == (1, 1) and conv.padding_mode == "zeros":
        return None
    return "it is not a 3x3 kernel under one row and column of zeros, undilated"
