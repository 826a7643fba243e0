"""How well a score ranks trained nets: over all of them, at equal MACs, at equal depth, and what its pick lacks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

Values = NDArray[np.float64]
Places = NDArray[np.int64]


def kendall(score: Values, accuracy: Values) -> float:
    """Kendall's tau-b, which takes ties into account; 0 where one of the two is the same for all.

    >>> kendall(np.array([1.0, 2.0, 3.0]), np.array([5.0, 7.0, 6.0]))
    0.333
    """
    if np.ptp(score) == 0 or np.ptp(accuracy) == 0:
        return 0.0
    return round(float(kendalltau(score, accuracy).statistic), 3)


def equal_bins(cost: Values, count: int) -> list[Places]:
    """The places of the nets in `count` bins of as many each, the cheapest first."""
    return np.array_split(np.argsort(cost, kind="stable"), min(count, len(cost)))


def regret(score: Values, accuracy: Values) -> float:
    """Points between the best net and the one of the largest score; where several share it, their mean.

    >>> regret(np.array([1.0, 3.0, 3.0]), np.array([90.0, 88.0, 86.0]))
    3.0
    """
    return float(accuracy.max() - accuracy[score == score.max()].mean())


@dataclass(frozen=True)
class Ranked:
    """Trained nets, and how a score ranks them: accuracies in percent, MACs, blocks; and the number of bins."""

    accuracy: Values
    macs: Values
    blocks: Places
    bins: int

    def told(self, score: Values) -> dict[str, float]:
        """Kendall and Spearman over all nets; the means over bins of equal MACs of Kendall and regret."""
        bins = equal_bins(self.macs, self.bins)
        return {
            "kendall": kendall(score, self.accuracy),
            "spearman": round(float(spearmanr(score, self.accuracy).statistic), 3),
            "kendall within bins": round(float(np.mean([kendall(score[b], self.accuracy[b]) for b in bins])), 3),
            "regret": self.regret(score),
        }

    def regret(self, score: Values) -> float:
        """The mean regret over bins of equal MACs; where all nets score alike, that of a net drawn from each bin."""
        bins = equal_bins(self.macs, self.bins)
        return round(float(np.mean([regret(score[b], self.accuracy[b]) for b in bins])), 2)

    def by_blocks(self, score: Values) -> dict[str, float]:
        """Kendall among the nets of each number of blocks, where there are three or more."""
        return {str(n): kendall(score[at], self.accuracy[at]) for n, at in self._of_each_number()}

    def _of_each_number(self) -> Iterator[tuple[int, Places]]:
        for number in range(self.blocks.max() + 1):
            at = np.flatnonzero(self.blocks == number)
            if len(at) > 2:
                yield number, at

    def part(self, places: Places) -> "Ranked":
        """Some of the nets, with bins of as many nets each."""
        share = len(places) / len(self.accuracy)
        return Ranked(self.accuracy[places], self.macs[places], self.blocks[places], max(round(self.bins * share), 1))
