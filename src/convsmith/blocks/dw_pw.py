"""Depthwise, then pointwise: the depthwise separable convolution, with a depth multiplier."""

from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from convsmith.algebra import DepthwiseFirst, Form
from convsmith.blocks.base import Block, Factored, depthwise_first, keep_variance, rank_misfit, ranks_above, registered
from convsmith.blocks.parameters import count, one_of
from convsmith.kernels.filters import SplitDepthwise, TiledDepthwise, TurnedPointwise
from convsmith.kernels.spec import ConvSpec

_DEPTHWISE = {"tile": TiledDepthwise, "split": SplitDepthwise}


@registered
@final
@dataclass(frozen=True)
class DwPw(Factored):
    """A depthwise kernel C -> r C, then a pointwise r C -> N; r C (K + N) multiply-accumulates per output pixel.

    r: filters per input channel; at r = min(K, N) it represents every convolution. by: how more than one are computed,
    with the same weights and answers: `tile`, the input r times over and a plain depthwise kernel. `split` is r
    depthwise kernels side by side. `group` is one convolution with groups of one input and r outputs, which most
    runtimes are slow at.

    >>> DwPw(r=2).build(ConvSpec(8, 16)).pointwise
    TurnedPointwise(16, 16, kernel_size=(1, 1), stride=(1, 1), bias=False)
    >>> str(DwPw(r=2, by="split"))
    'dw-pw:r=2,by=split'
    """

    name: ClassVar[str] = "dw-pw"
    r: int = count(1)
    by: str = one_of("tile", "split", "group")

    def misfit(self, conv: ConvSpec) -> str | None:
        """More filters per input channel than min(K, N)."""
        return rank_misfit(self.r, conv, conv.out_channels)

    def dearer(self, conv: ConvSpec) -> list[Block]:
        """Higher multipliers, up to the exact one."""
        return [DwPw(r, self.by) for r in ranks_above(self.r, conv, conv.out_channels)]

    def kernels(self, conv: ConvSpec) -> dict[str, nn.Module]:
        """`depthwise` with the geometry, `pointwise` with the bias."""
        if self.r > 1 and self.by != "group" and conv.axes == 2:  # over other axes one convolution is all there is
            return {
                "depthwise": keep_variance(_DEPTHWISE[self.by](conv, self.r)),
                "pointwise": TurnedPointwise(conv, self.r),
            }
        pointwise = conv.pointwise(self.r * conv.in_channels, conv.out_channels, conv.bias)
        return depthwise_first(conv, self.r, pointwise)

    def form(self, conv: ConvSpec) -> Form:
        """Rank r per input channel."""
        return DepthwiseFirst(self.r)
