"""What gives way under a limit on MACs: the dearest layers first, rung by rung of their ladders."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

# Every next rung has at most this part of the one before: steps fine enough for a budget, few to prove.
RUNG = 0.85


class Costs(Protocol):
    """What a layer can be replaced by."""

    @property
    def macs(self) -> int:
        """Its multiply-accumulates."""


T = TypeVar("T", bound=Costs)


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


@dataclass(frozen=True)
class Joint(Generic[T]):
    """Layers that step down together below their own ladders; each rung has something for every one of them."""

    layers: tuple[int, ...]
    rungs: tuple[tuple[T, ...], ...]


def give_way(
    macs: Sequence[int], ladders: Sequence[Sequence[T]], joints: Sequence[Joint[T]], limit: float
) -> tuple[list[T | None], int]:
    """What each layer becomes (None: it stays) and the MACs of all, at most `limit` where that can be.

    macs: of the layers as they are. The layer of highest relative cost takes the next rung of its ladder, and below it
    those of its joint, with the others of the joint, until the limit is kept or all ladders are at their end.
    """
    chosen: list[T | None] = [None] * len(macs)
    own = [deque(rungs) for rungs in ladders]
    rungs = {layer: below for joint in joints for below in [deque(joint.rungs)] for layer in joint.layers}
    together = {layer: joint.layers for joint in joints for layer in joint.layers}
    total = sum(macs)

    def cost(i: int) -> tuple[float, int]:
        found = chosen[i]
        now = macs[i] if found is None else found.macs
        return now / macs[i], now

    while total > limit:
        open_ = [i for i in range(len(macs)) if own[i] or rungs.get(i)]
        if not open_:
            break
        i = max(open_, key=cost)
        step = {i: own[i].popleft()} if own[i] else dict(zip(together[i], rungs[i].popleft(), strict=True))
        for layer, taken in step.items():
            total += taken.macs - cost(layer)[1]
            chosen[layer] = taken
            if len(step) > 1:
                own[layer].clear()
    return chosen, total
