"""From times to what can be said: medians, quartiles, and the bounds of a ratio."""

from collections.abc import Iterator, Mapping

import numpy as np

from convsmith.bench.records import FASTER, SLOWER, UNSURE, Latency
from convsmith.latency.interleaved import Times

RESAMPLES = 2000  # of the bootstrap


def compare(times: Mapping[str, Times], runtime: str, batch: int, seed: int) -> Iterator[Latency]:
    """Each model's times against the first one's, round by round; times are in seconds."""
    base = next(iter(times.values()), np.zeros(0))
    for number, (name, readings) in enumerate(times.items()):
        low, high = (1.0, 1.0) if number == 0 else ratio_bounds(base, readings, seed)
        q1, median, q3 = (1e3 * float(q) for q in np.quantile(readings, (0.25, 0.5, 0.75)))
        ratio = float(np.median(readings) / np.median(base))
        word = "" if number == 0 else verdict(low, high)
        yield Latency(name, runtime, batch, median, q1, q3, len(readings), ratio, low, high, word)


def ratio_bounds(base: Times, own: Times, seed: int) -> tuple[float, float]:
    """The 95 % bounds of median(own) / median(base), by drawing rounds anew with replacement, both models' together.

    >>> ratio_bounds(np.array([1.0, 2.0, 4.0]), np.array([2.0, 4.0, 8.0]), seed=0)
    (2.0, 2.0)
    """
    rounds = np.random.default_rng(seed).integers(len(base), size=(RESAMPLES, len(base)))
    ratios = np.median(own[rounds], axis=1) / np.median(base[rounds], axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high)


def verdict(low: float, high: float) -> str:
    """What the bounds of a ratio allow to say.

    >>> verdict(0.5, 0.9), verdict(0.9, 1.1), verdict(1.2, 1.3)
    ('faster', 'unclear', 'slower')
    """
    return FASTER if high < 1 else SLOWER if low > 1 else UNSURE
