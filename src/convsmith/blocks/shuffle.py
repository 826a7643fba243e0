"""The unit of ShuffleNet: grouped pointwise kernels whose groups a channel shuffle mixes."""

from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from convsmith.blocks.base import registered
from convsmith.blocks.parameters import count
from convsmith.blocks.unit import Unit, spatial, undivided
from convsmith.kernels import ChannelShuffle, normalized, pointwise
from convsmith.kernels.spec import ConvSpec


@registered
@final
@dataclass(frozen=True)
class Shuffle(Unit):
    """GPW(g), channel shuffle, depthwise, GPW(g); C (C s^2 / g + K + N / g) multiply-accumulates per output pixel.

    g: groups; every output reaches all channels where g^2 is at most C. s: the stride. From Zhang et al., CVPR 2018.

    >>> list(dict(Shuffle(g=2).build(ConvSpec(8, 16)).named_children()))
    ['mix', 'shuffle', 'depthwise', 'pointwise']
    """

    name: ClassVar[str] = "shuffle"
    g: int = count(2)

    def misfit(self, conv: ConvSpec) -> str | None:
        """Groups that do not divide both channel counts."""
        return undivided(self.g, input=conv.in_channels, output=conv.out_channels)

    def kernels(self, conv: ConvSpec) -> dict[str, nn.Module]:
        """A ReLU behind the first only, as published."""
        inputs = conv.in_channels
        return {
            "mix": normalized(pointwise(inputs, inputs, self.g), nn.ReLU()),
            "shuffle": ChannelShuffle(self.g),
            "depthwise": spatial(conv, inputs),
            "pointwise": pointwise(inputs, conv.out_channels, self.g, bias=conv.bias),
        }
