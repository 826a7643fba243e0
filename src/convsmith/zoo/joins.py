"""Units of two branches whose outputs stand side by side, and are shuffled."""

from typing import final

import torch
from torch import Tensor, nn

from convsmith.kernels import ChannelShuffle


@final
class TwoBranches(nn.Module):
    """Both branches see the input; then the shuffle of two groups, unless `mixer` says otherwise."""

    def __init__(self, left: nn.Module, right: nn.Module, mixer: nn.Module | None = None) -> None:
        super().__init__()
        self.left, self.right = left, right
        self.mixer = ChannelShuffle(2) if mixer is None else mixer

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, channels of left and right, ..)."""
        y: Tensor = self.mixer(torch.cat([self.left(x), self.right(x)], 1))
        return y


@final
class SplitHead(nn.Module):
    """The first `keep` channels pass, the others go through the branch, then the shuffle of two groups."""

    def __init__(self, keep: int, right: nn.Module) -> None:
        super().__init__()
        self.keep, self.right = keep, right
        self.mixer = ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, keep + channels of the branch, h, w)."""
        y: Tensor = self.mixer(torch.cat([x[:, : self.keep], self.right(x[:, self.keep :])], 1))
        return y


@final
class SplitEvenOdd(nn.Module):
    """Even channels pass, odd ones go through the branch and stand behind: split and shuffle in one."""

    def __init__(self, right: nn.Module) -> None:
        super().__init__()
        self.right = right

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        return torch.cat([x[:, ::2], self.right(x[:, 1::2])], 1)
