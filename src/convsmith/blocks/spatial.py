"""Spatial decomposition: a vertical kernel, then a horizontal one; of volumes one along time, then one over the map."""

from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar, final

from torch import nn

from convsmith.algebra import Form, Spatial
from convsmith.blocks.base import Block, Factored, convolution, keep_variance, registered, steps_above
from convsmith.blocks.parameters import count
from convsmith.kernels.spec import ConvSpec
from convsmith.text import times


@registered
@final
@dataclass(frozen=True)
class SpatialPair(Factored):
    """A kh x 1 kernel C -> r, then a 1 x kw kernel r -> N; r (s kh C + kw N) multiply-accumulates per output pixel.

    Over three axes a kt x 1 x 1 kernel, then a 1 x kh x kw kernel (as in Tran et al., CVPR 2018, in the other order).

    r: maps between the two; s: the horizontal stride. From Jaderberg et al., "Speeding up Convolutional Neural Networks
    with Low Rank Expansions" (BMVC 2014).

    >>> SpatialPair(r=4).build(ConvSpec(8, 16)).horizontal
    Conv2d(4, 16, kernel_size=(1, 3), stride=(1, 1), padding=(0, 1), bias=False)
    """

    name: ClassVar[str] = "spatial"
    r: int = count()

    def misfit(self, conv: ConvSpec) -> str | None:
        """A kernel with one dimension, or more maps than represent every weight."""
        if 1 in _sides(conv):
            return f"a {times(conv.kernel)} kernel has one dimension already"
        full = _full(conv)
        return f"r={self.r} is more than {full}, where the block is exact" if self.r > full else None

    def dearer(self, conv: ConvSpec) -> list[Block]:
        """More maps, an eighth of the channels at a time."""
        return [SpatialPair(r) for r in steps_above(self.r, conv, _full(conv))]

    def kernels(self, conv: ConvSpec) -> dict[str, nn.Module]:
        """`vertical` and `horizontal`, each with the geometry along its own axis; the bias on the second."""
        tall, wide = _along(conv, 0), _along(conv, 1)
        return {
            "vertical": keep_variance(convolution(tall, conv.in_channels, self.r)),
            "horizontal": convolution(wide, self.r, conv.out_channels, conv.bias),
        }

    def form(self, conv: ConvSpec) -> Form:
        """Rank r between rows and columns."""
        return Spatial(self.r, _sides(conv))


def _along(conv: ConvSpec, axis: int) -> ConvSpec:
    """The geometry along the first axis, or along the others; along the rest every pixel is kept."""

    def keep(sizes: tuple[int, ...], rest: int) -> tuple[int, ...]:
        return (sizes[0], *(rest for _ in sizes[1:])) if axis == 0 else (rest, *sizes[1:])

    return replace(
        conv,
        kernel=keep(conv.kernel, 1),
        stride=keep(conv.stride, 1),
        padding=keep(conv.padding, 0),
        dilation=keep(conv.dilation, 1),
    )


def _full(conv: ConvSpec) -> int:
    tall, wide = _sides(conv)
    return min(conv.in_channels * tall, conv.out_channels * wide)


def _sides(conv: ConvSpec) -> tuple[int, int]:
    """Taps along the first axis, and over the others together."""
    return conv.kernel[0], prod(conv.kernel[1:])
