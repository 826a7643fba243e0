"""Moments as methods see them: what few samples make up taken out, a little noise put in, and no Gram matrix copied."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from convsmith.algebra.second_moments import Statistics

# White noise on every channel, as a share of the channel's variance: keeps factorizations of a Gram matrix sound.
RIDGE = 1e-6
# A channel that is active in fewer rows for each tap than these is known too little to be fitted to.
FEWEST = 4
CHUNK = 16  # channels of a strip of the Gram matrix


@dataclass(frozen=True, eq=False)
class Conditioned:
    """Moments in which every channel is alive: G' = t G, but for the blocks G_cc of the channels themselves.

    measured: as they came, with G; kept: t; blocks: G'_cc (C, K, K), noise included; cross (C K, N) and energy (N,) are
    those that go with G'.
    """

    measured: Statistics
    kept: Tensor
    blocks: Tensor
    cross: Tensor
    energy: Tensor

    @classmethod
    def of(cls, measured: Statistics, rows: Tensor, channels: int) -> Self:
        """Condition moments for a weight (N, C K).

        With channels of unit variance, entries between channels that S samples make up have squares of (C K)^2 / S in
        all. That share of what stands there is taken off, down to the metric of each channel alone (as Ledoit and Wolf,
        "A well-conditioned estimator for large-dimensional covariance matrices", 2004). It vanishes with many samples.
        A channel active in few rows, S_c < 4 K, shows chance. So noise of 4 K / S_c - 1 times its variance ties it to
        its weight. Responses follow as if the weight had made them from such inputs: what is missing of the data is
        filled in by it. A dead channel gets a little of the others' noise and is so fitted to its weight.
        """
        own = _own(_by_channels(measured.gram, channels))
        taps = own.shape[1]
        variance = own.diagonal(dim1=1, dim2=2).mean(1)
        alive = variance > 0
        unit = torch.where(alive, 1 / variance, 0.0)
        made_up = (alive.sum() * taps).square() / measured.samples
        kept = 1 - (made_up / _between(measured.gram, own, unit)).clamp(max=1)
        mean = variance.mean()
        rare = (FEWEST * taps / measured.active.view(channels, taps).mean(1) - 1).clamp(min=0)
        noise = RIDGE * (variance + torch.where(mean > 0, 1e-6 * mean, 1.0)) + torch.where(alive, rare * variance, 0.0)
        blocks = own + torch.diag_embed(noise[:, None].expand(-1, taps))
        # what the weight answers to the change (n, c k)
        by_channel = rows.view(-1, channels, taps).transpose(0, 1) @ (blocks - kept * own)  # (c, n, k)
        answers = (kept - 1) * (rows @ measured.gram) + by_channel.transpose(0, 1).flatten(1)
        return cls(measured, kept, blocks, measured.cross + answers.T, measured.energy + (answers * rows).sum(1))

    @cached_property
    def gram(self) -> Tensor:
        """G' (C K, C K), a copy."""
        gram = self.measured.gram * self.kept
        _own(gram.view_as(self._by_channels)).copy_(self.blocks)
        return gram

    def strips(self) -> Iterator[tuple[int, Tensor]]:
        """The number of a channel and, for it and the next few, their rows of G' (b, K, C, K)."""
        for first in range(0, len(self.blocks), CHUNK):
            strip = self._by_channels[first : first + CHUNK] * self.kept
            own = slice(first, first + len(strip))
            _own(strip[:, :, own]).copy_(self.blocks[own])
            yield first, strip

    def through(self, filters: Tensor) -> Tensor:
        """Moments of filters (C, r, K) on each channel with every patch, (C, r, C, K)."""
        # G is symmetric: (c, k, c' k') is its own rows of blocks, with nothing copied
        seen = filters @ self._by_channels.flatten(2) * self.kept
        by_channels = seen.view(*filters.shape[:2], *self.blocks.shape[:2])
        _own(by_channels).copy_(filters @ self.blocks)
        return by_channels

    @property
    def _by_channels(self) -> Tensor:
        return _by_channels(self.measured.gram, len(self.blocks))


def _by_channels(gram: Tensor, channels: int) -> Tensor:
    """A Gram matrix (C K, C K) by channels and taps, (C, K, C, K)."""
    taps = len(gram) // channels
    return gram.view(channels, taps, channels, taps)


def _own(moments: Tensor) -> Tensor:
    """A view of what is of one channel in moments (C, m, C, K), (C, m, K)."""
    return moments.diagonal(dim1=0, dim2=2).permute(2, 0, 1)


def _between(gram: Tensor, own: Tensor, unit: Tensor) -> Tensor:
    """The sum of squares of what stands between different channels, each divided by its variance 1 / unit."""
    of_taps = unit.repeat_interleave(own.shape[1])
    few = CHUNK * own.shape[1]
    strips = zip(torch.split(gram, few), torch.split(of_taps, few), strict=True)
    total = torch.stack([(strip.square() @ of_taps) @ units for strip, units in strips]).sum()
    return (total - (own.square().sum((1, 2)) * unit.square()).sum()).clamp(min=1e-300)
