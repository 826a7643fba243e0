"""A depthwise kernel, then a pointwise one of which each output reads some of the input channels."""

from abc import abstractmethod
from typing import final

import torch
from torch import Tensor, nn

from convsmith.algebra import DepthwiseFirst, Factors, Form
from convsmith.blocks.base import Factored, depthwise_first
from convsmith.kernels.spec import ConvSpec


class PartlyMixed(Factored):
    """Depthwise, then a pointwise kernel that leaves out the weights between channels that it does not connect."""

    @abstractmethod
    def reads(self, conv: ConvSpec) -> Tensor:
        """The input channels that each output reads, (n, cg)."""

    @abstractmethod
    def pointwise(self, conv: ConvSpec) -> nn.Module:
        """The kernel that reads them; it has the convolution's bias."""

    @final
    def kernels(self, conv: ConvSpec) -> dict[str, nn.Module]:
        """`depthwise` with the geometry, `pointwise` with the bias."""
        return depthwise_first(conv, 1, self.pointwise(conv))

    @final
    def form(self, conv: ConvSpec) -> Form:
        """Rank 1 per input channel within what is read; the other weights are lost."""
        mask = torch.zeros(conv.out_channels, conv.in_channels, dtype=torch.bool)
        return DepthwiseFirst(1, mask.scatter(1, self.reads(conv), True))

    @final
    def weights(self, conv: ConvSpec, factors: Factors) -> tuple[Tensor, ...]:
        """The pointwise without what it does not connect, (n, c, 1) -> (n, cg)."""
        depthwise, pointwise = factors
        return depthwise, pointwise[..., 0].gather(1, self.reads(conv).to(pointwise.device))
