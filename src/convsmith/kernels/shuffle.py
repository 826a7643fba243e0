"""Channel shuffle: channels of all groups change places, so that the next grouped kernel mixes them."""

from typing import final

from torch import Tensor, nn


@final
class ChannelShuffle(nn.Module):
    """Channels as a (groups, C / groups) table, read by columns (ShuffleNet; Zhang et al., CVPR 2018).

    Views and one copy, which any runtime knows; `nn.ChannelShuffle` is an operator of its own that few do.

    >>> import torch
    >>> ChannelShuffle(2)(torch.arange(6.0).view(1, 6, 1, 1)).flatten().tolist()
    [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w); groups must divide c."""
        _, channels, height, width = x.shape
        # (b, c, h, w) -> (b, g, c / g, h, w) -> (b, c / g, g, h, w) -> (b, c, h, w)
        table = x.view(-1, self.groups, channels // self.groups, height, width)
        return table.transpose(1, 2).reshape(-1, channels, height, width)

    def extra_repr(self) -> str:
        """Say what torch prints between the brackets."""
        return str(self.groups)
