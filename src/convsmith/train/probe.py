"""The learning rate of a net that is trained already: tried in short, from small rates up, on held-out images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, repeat
from math import inf, isfinite

from torch import Tensor

from convsmith.data import PLAIN, Augment, Data

LADDER = tuple(10 ** (-step / 2) for step in range(6, -1, -1))  # rates to try, as shares of the usual one
WORSE = 2.0  # so many times the least loss of a try, and larger rates are not tried
ENOUGH = 0.9  # share of the largest gain
SHARE, MOST = 5, 500  # one in so many of the training images judges, at most so many
STEPS, LEAST, PART = 60, 8, 20  # a try takes one in PART of the run's steps, from LEAST to STEPS


@dataclass(frozen=True)
class Probe:
    """The rate that was found, the held-out loss before, and that after each rate that was tried."""

    rate: float
    before: float
    tried: tuple[tuple[float, float], ...]


def find_rate(usual: float, before: float, loss_after: Callable[[float], float]) -> Probe:
    """Try rates from `usual` / 1000 up to `usual`; take the largest that gains nearly as much as the best of them.

    A run is longer than a try, and what it anneals gains from larger rates (Wu et al., "Understanding Short-Horizon
    Bias", ICLR 2018). Still larger ones are not tried once the loss is twice that of another, or no number. Where none
    makes the loss less than `before`, the smallest is taken.

    >>> find_rate(0.1, 1.0, lambda rate: (rate - 0.01) ** 2).rate
    0.0316
    >>> find_rate(0.1, 1.0, lambda rate: 1.0 + rate).rate
    0.0001
    """
    tried: list[tuple[float, float]] = []
    for part in LADDER:
        rate = float(f"{part * usual:.3g}")
        loss = loss_after(rate)
        tried.append((rate, loss if isfinite(loss) else inf))
        if tried[-1][1] == inf or tried[-1][1] > WORSE * min(each for _, each in tried):
            break
    gain = before - min(loss for _, loss in tried)
    good = [rate for rate, loss in tried if gain > 0 and before - loss >= ENOUGH * gain]
    return Probe(good[-1] if good else tried[0][0], before, tuple(tried))


@dataclass(frozen=True)
class Held:
    """How a training split is parted for a probe: batch size, batches that judge, and steps of a try."""

    size: int
    judges: int
    steps: int

    @classmethod
    def of(cls, images: int, batch_size: int, epochs: int, processes: int) -> "Held | None":
        """What suits so many images; None where they are too few to part."""
        size = min(batch_size, images // SHARE) // processes * processes
        if size < 2 * processes:
            return None
        batches = images // size
        judges = max(1, min(batches // SHARE, MOST // size))
        run = max(1, images // batch_size) * epochs
        return cls(size, judges, min(run, max(LEAST, min(STEPS, run // PART))))

    def judging(self, data: Data, seed: int, share: tuple[int, int], device: object) -> list[tuple[Tensor, Tensor]]:
        """The batches that judge, as they are."""
        return list(islice(self._pass(data, seed, share, device, PLAIN), self.judges))

    def training(
        self, data: Data, seed: int, share: tuple[int, int], device: object, augment: Augment
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the other images, over and over, for the steps of a try."""
        passes = (self._pass(data, seed, share, device, augment) for _ in repeat(None, self.steps))
        return islice(chain.from_iterable(islice(each, self.judges, None) for each in passes), self.steps)

    def _pass(
        self, data: Data, seed: int, share: tuple[int, int], device: object, augment: Augment
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The split in one order, augmented or not."""
        return data.train.shuffled(self.size, seed=seed, epoch=0, augment=augment, share=share, device=str(device))
