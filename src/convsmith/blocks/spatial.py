"""Spatial decomposition: a vertical kernel, then a horizontal one."""

from dataclasses import dataclass, replace
from typing import ClassVar, final

from torch import nn

from convsmith.algebra import Form, Spatial
from convsmith.blocks.base import Block, Factored, convolution, count, keep_variance, registered, steps_above
from convsmith.kernels.spec import ConvSpec


@registered
@final
@dataclass(frozen=True)
class SpatialPair(Factored):
    """A kh x 1 kernel C -> r, then a 1 x kw kernel r -> N; r (s kh C + kw N) multiply-accumulates per output pixel.

    r: maps between the two; s: the horizontal stride. From Jaderberg et al., "Speeding up Convolutional Neural Networks
    with Low Rank Expansions" (BMVC 2014).

    >>> SpatialPair(r=4).build(ConvSpec(8, 16)).horizontal
    Conv2d(4, 16, kernel_size=(1, 3), stride=(1, 1), padding=(0, 1), bias=False)
    """

    name: ClassVar[str] = "spatial"
    r: int = count()

    def misfit(self, conv: ConvSpec) -> str | None:
        """A kernel with one dimension, or more maps than represent every weight."""
        if 1 in conv.kernel:
            return f"a {conv.kernel[0]}x{conv.kernel[1]} kernel has one dimension already"
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
        return Spatial(self.r, conv.kernel)


def _along(conv: ConvSpec, axis: int) -> ConvSpec:
    """The geometry along one axis; along the other every pixel is kept."""

    def keep(pair: tuple[int, int], rest: int) -> tuple[int, int]:
        return (pair[0], rest) if axis == 0 else (rest, pair[1])

    return replace(
        conv,
        kernel=keep(conv.kernel, 1),
        stride=keep(conv.stride, 1),
        padding=keep(conv.padding, 0),
        dilation=keep(conv.dilation, 1),
    )


def _full(conv: ConvSpec) -> int:
    return min(conv.in_channels * conv.kernel[0], conv.out_channels * conv.kernel[1])
