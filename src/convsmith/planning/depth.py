"""What a trained net's output loses without units of it, measured on images."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from convsmith.planning.pricing import Effect
from convsmith.progress import Progress
from convsmith.structure.units import Unit


@dataclass(frozen=True)
class Losses:
    """The units of one stage that can go, what counts least first, and what the output then loses.

    Squared relative errors of the output: `alone` without that unit alone, `together[k]` without the first k of them.
    """

    order: tuple[Unit, ...]
    alone: tuple[float, ...]
    together: tuple[float, ...]

    def relative(self, modules: tuple[str, ...]) -> float:
        """The relative error of the output without one unit."""
        return sqrt(next(lost for unit, lost in zip(self.order, self.alone, strict=True) if unit.modules == modules))


def measure_losses(effect: Effect, stages: Sequence[Sequence[Unit]], progress: Progress) -> list[Losses]:
    """Take the units that can go out one by one, then those of each stage together, the least first.

    Runs of single units go in order of execution, which is the cheapest.
    """
    movable = [[unit for unit in units if unit.uniform] for units in stages]
    count = sum(map(len, movable))
    alone: dict[tuple[str, ...], float] = {}
    for unit in (unit for units in movable for unit in units):
        progress(f"measuring without {unit.modules[0]}", len(alone), count)
        alone[unit.modules] = effect.without([unit.modules])
    losses = []
    for units in movable:
        order = sorted(units, key=lambda unit: alone[unit.modules])
        together = [effect.without([unit.modules for unit in order[:k]]) for k in range(2, len(order) + 1)]
        errors = tuple(alone[unit.modules] for unit in order)
        losses.append(Losses(tuple(order), errors, (0.0, *errors[:1], *together)))
    return losses
