"""Ways to divide units between stages: what each gains and costs, and those that no other beats."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Objective = Literal["gain", "value"]
By = Literal["gain", "value", "worth"]


@dataclass(frozen=True)
class Option:
    """A stage with `blocks` units: its gain and value, and what the whole net then has more (or less) than the base.

    `worth` is that of the change to a trained net: its share of the gain that is added, less that of the error.
    """

    blocks: int
    gain: float
    params: int
    macs: int
    seconds: float = 0.0
    value: float = 0.0
    worth: float = 0.0


@dataclass(frozen=True)
class Choice:
    """Units for every stage so far, and what they cost and gain.

    Attributes:
        blocks: Units of each stage.
        gain: Summed gain.
        params: Parameters; of `pareto`, as a difference to the net as it is.
        macs: Multiply-accumulates, likewise.
        seconds: Measured seconds for one image, likewise; 0 where none were measured.
        value: Summed value.
        worth: Summed worth of the changes, for a trained net.
    """

    blocks: tuple[int, ...]
    gain: float
    params: int
    macs: int
    seconds: float = 0.0
    value: float = 0.0
    worth: float = 0.0

    def rank(self, by: By = "gain") -> tuple[float, tuple[int, ...]]:
        """What is best: the most gain (or value); a tie goes to the later stage. Rounded, so that ties are seen."""
        return round({"gain": self.gain, "value": self.value, "worth": self.worth}[by], 9), self.blocks[::-1]

    def add(self, option: Option) -> "Choice":
        """The same with one stage more."""
        return Choice(
            (*self.blocks, option.blocks),
            self.gain + option.gain, self.params + option.params, self.macs + option.macs,
            self.seconds + option.seconds, self.value + option.value, self.worth + option.worth,
        )  # fmt: skip


Measures = Callable[[Choice], tuple[float, ...]]
Rank = Callable[[Choice], tuple[float, tuple[int, ...]]]


def front(choices: Sequence[Choice], measures: Measures) -> list[Choice]:
    """The choices that no other beats: none is as good in every measure (the less the better) and better in one."""
    values = [measures(choice) for choice in choices]

    def beaten(mine: tuple[float, ...]) -> bool:
        return any(other != mine and _as_good(other, mine) for other in values)

    return [choice for choice, mine in zip(choices, values, strict=True) if not beaten(mine)]


def _as_good(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))


def allocate(
    options: Sequence[Sequence[Option]],
    total: int,
    fits: Callable[[Choice], bool],
    measures: Measures,
    rank: Rank = Choice.rank,
) -> list[Choice]:
    """Choose one option per stage with `total` blocks in all; the choices that fit, without those that cannot be best.

    The first in rank and the front are among those kept.
    """
    return [choice for choice in divide(options, total, measures, rank).get(total, []) if fits(choice)]


def divide(
    options: Sequence[Sequence[Option]], most: int, measures: Measures, rank: Rank = Choice.rank
) -> dict[int, list[Choice]]:
    """By number of blocks in all, up to `most`, the choices of one option per stage that can be best.

    Stage by stage, choices that have used as many blocks are compared. One is dropped when another ranks before it and
    is as good in every measure. What follows costs and gains the same behind both (dynamic programming).
    """
    kept = {0: [Choice((), 0.0, 0, 0)]}
    for stage in options:
        grown: dict[int, list[Choice]] = {}
        for used, choices in kept.items():
            for option in stage:
                if used + option.blocks <= most:
                    grown.setdefault(used + option.blocks, []).extend(choice.add(option) for choice in choices)
        kept = {used: _worth_keeping(choices, measures, rank) for used, choices in grown.items()}
    return kept


def _worth_keeping(choices: list[Choice], measures: Measures, rank: Rank) -> list[Choice]:
    kept: list[tuple[tuple[float, ...], Choice]] = []
    for choice in sorted(choices, key=rank, reverse=True):
        values = measures(choice)
        if not any(_as_good(other, values) for other, _ in kept):
            kept.append((values, choice))
    return [choice for _, choice in kept]
