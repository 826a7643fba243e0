"""Attention as an add-on: the convolution stays, and a gate that starts as the identity follows it."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from convsmith.algebra.request import WEIGHT_ALONE, FitRequest
from convsmith.blocks.base import Block, Carried, convolution, registered, taps, two_dimensional, write
from convsmith.blocks.parameters import count, count_or_zero
from convsmith.kernels import Eca, SqueezeExcite, start_as_identity
from convsmith.kernels.spec import Convolution, ConvSpec


class AddOn(Block):
    """The convolution itself and a gate behind it, which is exactly 1 until it has been trained.

    It stands before a normalization that follows, where published nets have theirs behind it. Put there into a trained
    net, its factors would be equal, for they start at 1.
    """

    fitted: ClassVar[bool] = False

    @abstractmethod
    def gate(self, channels: int) -> Eca | SqueezeExcite:
        """A gate for so many channels."""

    @final
    def unsuited(self, conv: ConvSpec) -> str | None:
        """A gate can follow any convolution of images."""
        return two_dimensional(conv)

    @final
    def kernels(self, conv: ConvSpec) -> dict[str, nn.Module]:
        """One kernel, the convolution with its gate: a gate sees everything and widens nothing."""
        gate = self.gate(conv.out_channels)
        start_as_identity(gate)
        return {
            "gated": nn.Sequential(convolution(conv, conv.in_channels, conv.out_channels, conv.bias, conv.groups), gate)
        }

    @final
    def carry(self, conv: Convolution, block: nn.Sequential, request: FitRequest = WEIGHT_ALONE) -> Carried:
        """Copy the weights; nothing is lost."""
        write(block.get_submodule("gated.0"), taps(conv), conv.bias)
        return Carried(0.0)


@registered
@final
@dataclass(frozen=True)
class AddEca(AddOn):
    """ECA behind the convolution: k weights in all (Wang et al., CVPR 2020).

    k: size of its kernel, odd; 0 takes the one adapted to the width.

    >>> AddEca().build(ConvSpec(8, 64)).gated[1].conv
    Conv1d(1, 1, kernel_size=(3,), stride=(1,), padding=(1,), bias=False)
    """

    name: ClassVar[str] = "eca"
    k: int = count_or_zero(0)

    def misfit(self, conv: ConvSpec) -> str | None:
        """An even kernel."""
        return f"k={self.k} is even, so no channel is its middle" if self.k and self.k % 2 == 0 else None

    def gate(self, channels: int) -> Eca:
        """The ECA module."""
        return Eca(channels, self.k or None)


@registered
@final
@dataclass(frozen=True)
class AddSe(AddOn):
    """Squeeze-and-excitation behind the convolution: about 2 N^2 / r weights (Hu et al., CVPR 2018).

    r: output channels per hidden one.

    >>> AddSe(r=8).build(ConvSpec(8, 64)).gated[1].gate.reduce
    Conv2d(64, 8, kernel_size=(1, 1), stride=(1, 1))
    """

    name: ClassVar[str] = "se"
    r: int = count(16)

    def misfit(self, conv: ConvSpec) -> str | None:
        """Fewer channels than r."""
        few = conv.out_channels < self.r
        return f"r={self.r} leaves none of its {conv.out_channels} output channels" if few else None

    def gate(self, channels: int) -> SqueezeExcite:
        """The SE module."""
        return SqueezeExcite(channels, self.r)
