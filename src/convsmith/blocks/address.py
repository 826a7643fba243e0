"""The block of AddressNet: shifts of channels and pixels between two grouped pointwise kernels."""

from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from convsmith.blocks.base import registered
from convsmith.blocks.parameters import count
from convsmith.blocks.unit import Unit, beyond_3x3, undivided
from convsmith.kernels import AddressShift, ChannelShift, normalized, pointwise
from convsmith.kernels.spec import ConvSpec


@registered
@final
@dataclass(frozen=True)
class Address(Unit):
    """GPW(g), channel shift by half a group, address shift, GPW(g); C (C s^2 + N) / g multiply-accumulates per pixel.

    g: groups; an output reaches 2 C / g channels. s: the stride. Nothing but the shifts sees more than one pixel.
    From what the abstract of Zhong et al. (WACV 2019) says.

    >>> Address(g=2).build(ConvSpec(8, 16)).address
    AddressShift(8)
    """

    name: ClassVar[str] = "address"
    g: int = count(2)

    def misfit(self, conv: ConvSpec) -> str | None:
        """Another geometry than 3x3, and channels that groups, half groups or directions do not divide."""
        if (conv.in_channels % 4) or (conv.in_channels % (2 * self.g)):
            return (
                f"four directions and {self.g} groups of even size do not divide its {conv.in_channels} input channels"
            )
        if conv.stride[0] != conv.stride[1]:
            return "it strides along one axis only"
        return beyond_3x3(conv) or undivided(self.g, output=conv.out_channels)

    def kernels(self, conv: ConvSpec) -> dict[str, nn.Module]:
        """A ReLU behind the first; the stride is on the last."""
        inputs = conv.in_channels
        return {
            "mix": normalized(pointwise(inputs, inputs, self.g), nn.ReLU()),
            "channel": ChannelShift(inputs // (2 * self.g)),
            "address": AddressShift(inputs),
            "pointwise": pointwise(inputs, conv.out_channels, self.g, conv.stride[0], conv.bias),
        }
