"""Shifts: kernels without weights that move channels, pixels or the shortcut to another address.

The three primitives are those of Zhong et al. (WACV 2019), defined here from what its abstract says of them.
"""

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convsmith.errors import ConvsmithError


@final
class ChannelShift(nn.Module):
    """Channel c of the output is channel (c + shift) mod C of the input, by one copy; `append_shift` copies less.

    With shift = C / (2 g) every group of a grouped kernel behind it sees halves of two groups before it. It mixes less
    than the shuffle: g of them are needed to mix g groups, where two shuffles are enough.

    >>> ChannelShift(2)(torch.arange(5.0).view(1, 5, 1, 1)).flatten().tolist()
    [2.0, 3.0, 4.0, 0.0, 1.0]
    """

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        wrapped = self.shift % x.shape[1]
        return torch.cat([x[:, wrapped:], x[:, :wrapped]], 1)

    def extra_repr(self) -> str:
        """Say what torch prints between the brackets."""
        return str(self.shift)


def append_shift(buffer: Tensor, shift: int) -> Tensor:
    """The channel shift of the first C channels of a buffer with room for C + shift: append, and answer a view of it.

    Only `shift` channels are copied. The producer writes to `buffer[:, :C]` what it has to write somewhere anyway: in
    inference `torch.clamp` (a ReLU) and `torch.bmm` (a 1x1 kernel) take it as `out=`.
    buffer: (b, C + shift, h, w), shift at most C.

    >>> buffer = torch.tensor([0.0, 1, 2, -1]).view(1, 4, 1, 1)
    >>> append_shift(buffer, 1).flatten().tolist()
    [1.0, 2.0, 0.0]
    """
    channels = buffer.shape[1] - shift
    buffer[:, channels:] = buffer[:, :shift]
    return buffer[:, shift:]


@final
class AddressShift(nn.Module):
    """A quarter of the channels each moves one pixel to the left, right, up and down, with zeros behind it.

    Four such shifts and a pointwise kernel see a window of 3x3 without its corners. Raises ConvsmithError where four
    does not divide the channels.

    >>> AddressShift(4)(torch.ones(1, 4, 2, 2))[0].tolist()
    [[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 1.0]]]
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels % 4:
            raise ConvsmithError(f"Address shift: four directions must divide the channels, got {channels}.")
        self.quarter = channels // 4

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        left, right, up, down = torch.split(x, self.quarter, 1)
        # a negative pad crops: what leaves at one side makes room for zeros at the other
        moved = F.pad(left, (-1, 1)), F.pad(right, (1, -1)), F.pad(up, (0, 0, -1, 1)), F.pad(down, (0, 0, 1, -1))
        return torch.cat(moved, 1)

    def extra_repr(self) -> str:
        """Say what torch prints between the brackets."""
        return str(4 * self.quarter)


@final
class ShortcutShift(nn.Module):
    """The branch's output beside the shortcut's, not added to it: a join that costs no arithmetic.

    >>> ShortcutShift(nn.Conv2d(4, 8, 1))(torch.zeros(1, 4, 2, 2)).shape
    torch.Size([1, 12, 2, 2])
    """

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, channels of the shortcut and then the branch, ..)."""
        return torch.cat([self.shortcut(x), self.branch(x)], 1)


@final
class Newest(nn.Module):
    """The last `channels` channels, a view; as a shortcut under `ShortcutShift` it lets the oldest ones go.

    >>> Newest(2)(torch.arange(5.0).view(1, 5, 1, 1)).flatten().tolist()
    [3.0, 4.0]
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, channels, h, w)."""
        return x[:, x.shape[1] - self.channels :]

    def extra_repr(self) -> str:
        """Say what torch prints between the brackets."""
        return str(self.channels)
