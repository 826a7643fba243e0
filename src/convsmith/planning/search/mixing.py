"""Which sequences of channel-mixing kernels reach all channels and need every kernel for it.

On a ring of M channels every grouped or rolling kernel turns a run of outputs into a run of inputs: a group's, or
windows that overlap. So what an output sees through several kernels is known by a start and a length, and no module is
built.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, product
from math import gcd

import numpy as np
from numpy.typing import NDArray

from convsmith.blocks import Kernel

Ints = NDArray[np.int64]

OVERLAPS = (0.25, 0.33, 0.5, 0.75)
Word = tuple[Kernel, ...]


@dataclass(frozen=True)
class Mixer:
    """A kernel between `inputs` and `outputs` channels; a pointwise one is grouped with one group."""

    kernel: Kernel
    inputs: int
    outputs: int

    @property
    def width(self) -> int:
        """How many inputs an output reads."""
        return self.inputs // self.kernel.g

    @property
    def step(self) -> int:
        """How far the windows of two neighbouring outputs are apart."""
        return self.width - int(self.kernel.o * self.width)

    @property
    def rolls(self) -> bool:
        """Whether its windows overlap."""
        return self.kernel.kind == "rpw"


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of channels around a ring, one for each kind of output: first channel and length."""

    first: Ints
    length: Ints

    @classmethod
    def of(cls, mixer: Mixer) -> "Runs":
        """What the outputs of one kernel read; each different run once."""
        if mixer.rolls:
            first = np.unique(np.arange(mixer.outputs) * mixer.step % mixer.inputs)
        else:
            first = np.arange(mixer.kernel.g) * mixer.width
        return cls(first, np.full(len(first), mixer.width))

    def through(self, mixer: Mixer) -> "Runs":
        """What they see through a kernel before, which has as many inputs as outputs."""
        if mixer.rolls:
            first = self.first * mixer.step % mixer.inputs
            return Runs(first, np.minimum((self.length - 1) * mixer.step + mixer.width, mixer.inputs))
        first, last = self._groups(mixer)
        return Runs(first * mixer.width, np.minimum((last - first + 1) * mixer.width, mixer.inputs))

    def fill(self, mixer: Mixer) -> bool:
        """Whether every run sees all inputs of the kernel before, whatever their number."""
        if not mixer.rolls:
            first, last = self._groups(mixer)
            return bool((last - first + 1 >= mixer.kernel.g).all())
        # A run may go round the end of the outputs, where windows start anew at channel 0.
        whole = self.length >= mixer.outputs
        start = np.where(whole, 0, self.first)
        beyond = np.where(whole, 0, start + self.length - mixer.outputs)
        here = (np.where(whole, mixer.outputs, self.length) - np.maximum(beyond, 0) - 1) * mixer.step + mixer.width
        there = np.where(beyond > 0, (beyond - 1) * mixer.step + mixer.width, 0)
        begin = start * mixer.step % mixer.inputs
        closed = (there >= begin) & (begin + here >= mixer.inputs)
        return bool(((here >= mixer.inputs) | (there >= mixer.inputs) | closed).all())

    def _groups(self, mixer: Mixer) -> tuple[Ints, Ints]:
        """First and last group of outputs that a run touches."""
        size = mixer.outputs // mixer.kernel.g
        return self.first // size, (self.first + self.length - 1) // size


def mixers(inputs: int, outputs: int) -> list[Mixer]:
    """Every kernel between so many channels that reads more than one; rolling ones of the same step once."""
    choices = [Mixer(Kernel("pw"), inputs, outputs)]
    for g in (g for g in range(2, inputs) if inputs % g == 0):
        if gcd(inputs, outputs) % g == 0:
            choices.append(Mixer(Kernel("gpw", g=g), inputs, outputs))
        rolling = [Mixer(Kernel("rpw", g=g, o=o), inputs, outputs) for o in OVERLAPS]
        choices += {mixer.step: mixer for mixer in reversed(rolling)}.values()
    return choices


@dataclass(frozen=True)
class Mixing:
    """Kernels that together reach all channels; `needed`: which of them they do not reach all channels without."""

    kernels: Word
    needed: tuple[bool, ...]


@lru_cache(maxsize=256)
def mixings(inputs: int, outputs: int) -> tuple[Mixing, ...]:
    """All sequences of up to three kernels that mix all of `inputs` channels into each of `outputs`.

    Three have one number of groups, two may differ. Those that are not needed may become spatial, and so be.
    A shuffle follows a grouped kernel and has its groups. Outputs in a row then read all groups in turn, and with no
    other shuffle would fewer outputs do.

    >>> [",".join(map(str, mixing.kernels)) for mixing in mixings(4, 4) if all(mixing.needed)][:2]
    ['pw', 'gpw(g=2),shuffle(g=2),gpw(g=2)']
    """
    return (*_alone(inputs, outputs), *_pairs(inputs, outputs), *_triples(inputs, outputs))


def _alone(inputs: int, outputs: int) -> Iterator[Mixing]:
    yield from (Mixing((mixer.kernel,), (True,)) for mixer in mixers(inputs, outputs) if mixer.kernel.g == 1)


def _pairs(inputs: int, outputs: int) -> Iterator[Mixing]:
    between = min(inputs, outputs)  # the number of channels grows at the last kernel, shrinks at the first
    for y in mixers(between, outputs):
        runs = Runs.of(y)
        for x in mixers(inputs, between):
            if x.width * y.width < inputs:
                continue  # too few channels, however they lie
            needed = (inputs > outputs or y.kernel.g > 1, inputs < outputs or x.kernel.g > 1)
            full = runs.fill(x)
            if full:
                yield Mixing((x.kernel, y.kernel), needed)
            if not full and x.kernel.kind == "gpw":
                yield Mixing((x.kernel, Kernel("shuffle", g=x.kernel.g), y.kernel), (True, True, True))


def _triples(inputs: int, outputs: int) -> Iterator[Mixing]:
    between = min(inputs, outputs)
    firsts, middles, lasts = (
        _by_groups(mixers(*ends)) for ends in ((inputs, between), (between, between), (between, outputs))
    )
    for g in firsts.keys() & middles.keys() & lasts.keys() - {1}:
        for x, y, z in product(firsts[g], middles[g], lasts[g]):
            runs = Runs.of(z)
            needed = (
                inputs > outputs or not runs.fill(y),
                not runs.fill(x),
                inputs < outputs or not Runs.of(y).fill(x),
            )
            if runs.through(y).fill(x):
                yield Mixing((x.kernel, y.kernel, z.kernel), needed)


def _by_groups(found: Sequence[Mixer]) -> dict[int, list[Mixer]]:
    return {g: list(alike) for g, alike in groupby(found, key=lambda mixer: mixer.kernel.g)}


@lru_cache(maxsize=64)
def repeated(channels: int, times: int) -> tuple[Mixing, ...]:
    """Single rolling kernels that mix all of `channels` where one stands in each of so many places, and in no fewer.

    Grouped ones never do: a group stays a group.

    >>> [str(mixing.kernels[0]) for mixing in repeated(64, 4)]
    ['rpw(g=8,o=0.75)', 'rpw(g=16,o=0.25)']
    """
    rolling = (mixer for mixer in mixers(channels, channels) if mixer.rolls)
    return tuple(Mixing((x.kernel,), (True,)) for x in rolling if _fills(x, times) and not _fills(x, times - 1))


def _fills(mixer: Mixer, times: int) -> bool:
    runs = Runs.of(mixer)
    if times == 1:
        return False  # a rolling kernel has more than one group
    for _ in range(times - 2):
        runs = runs.through(mixer)
    return runs.fill(mixer)
