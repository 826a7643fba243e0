"""What gives way under a limit: the dearest layers first, rung by rung of their ladders."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

# Every next rung has at most this part of the one before: steps fine enough for a budget, few to prove.
RUNG = 0.85


class Costly(Protocol):
    """What has a cost of its own."""

    @property
    def macs(self) -> int:
        """Its multiply-accumulates."""


T = TypeVar("T", bound=Costly)


def ladder(found: Sequence[T], macs: float) -> list[T]:
    """Of some in order, dearest first, each that costs at most RUNG of the one taken before, starting from `macs`.

    The last is the cheapest of all, where that costs less than `macs`.
    """
    rungs: list[T] = []
    for each in found:
        if each.macs <= RUNG * macs:
            rungs.append(each)
            macs = each.macs
    least = min(found, key=lambda each: each.macs, default=None)
    return [*rungs, least] if least is not None and least.macs < macs else rungs


W = TypeVar("W")


@dataclass(frozen=True)
class Priced(Generic[W]):
    """What a layer can become, and its cost."""

    what: W
    cost: int


@dataclass(frozen=True)
class Joint(Generic[W]):
    """Layers that step down together below their own ladders; each rung has something for every one of them."""

    layers: tuple[int, ...]
    rungs: tuple[tuple[Priced[W], ...], ...]


def give_way(
    costs: Sequence[int], ladders: Sequence[Sequence[Priced[W]]], joints: Sequence[Joint[W]], limit: float
) -> tuple[list[W | None], int]:
    """What each layer becomes (None: it stays) and the cost of all, at most `limit` where that can be.

    costs: of the layers as they are. The layer of highest relative cost takes the next rung of its ladder. Below that
    it takes those of its joint, with the others of the joint. This goes on until the limit is kept or all ladders are
    at their end.
    """
    chosen: list[W | None] = [None] * len(costs)
    now, total = list(costs), sum(costs)
    rungs_left = [deque(rungs) for rungs in ladders]
    rungs = {layer: below for joint in joints for below in [deque(joint.rungs)] for layer in joint.layers}
    together = {layer: joint.layers for joint in joints for layer in joint.layers}
    while total > limit:
        open_ = [i for i in range(len(costs)) if rungs_left[i] or rungs.get(i)]
        if not open_:
            break
        i = max(open_, key=lambda j: (now[j] / costs[j], now[j]))
        step = (
            {i: rungs_left[i].popleft()} if rungs_left[i] else dict(zip(together[i], rungs[i].popleft(), strict=True))
        )
        for layer, taken in step.items():
            total += taken.cost - now[layer]
            now[layer], chosen[layer] = taken.cost, taken.what
            if len(step) > 1:
                rungs_left[layer].clear()
    return chosen, total
