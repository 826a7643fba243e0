"""One limit for all that can be done to a net: which layers become blocks, which channels and which units go."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import Any

# Halvings of the price that a unit of cost is given: each plan between two others differs from both by then.
HALVINGS = 40
# Choices are looked over so often with all others as they are; few of the nets tried need more than four.
PASSES = 12
# States that are enumerated, and settled ones that are bettered by exchanges.
FEW, STARTS = 20_000, 4
# A price of cost at which errors do not count.
DEAREST = 1e30


@dataclass(frozen=True)
class Way:
    """One way to treat something: what is done, and the squared relative error of the net's output from that alone."""

    what: Any
    error: float


@dataclass(frozen=True)
class Item:
    """Something to decide on; the first of its ways leaves it as it is.

    Attributes:
        name: What it is.
        ways: The ways to treat it.
        layers: Layers whose cost depends on it.
        excludes: By number, other items that stay as they are wherever this one does not.
    """

    name: str
    ways: tuple[Way, ...]
    layers: frozenset[str]
    excludes: frozenset[int] = frozenset()


State = tuple[int, ...]  # by item, the number of the way chosen
Cost = Callable[[str, Mapping[int, Any]], float]  # of a layer, by what is done to the items that it depends on


@dataclass(frozen=True, eq=False)
class Joint:
    """Items whose errors add up and whose costs may depend on each other: two narrowed groups share a layer.

    Attributes:
        items: What is decided on.
        cost: What a layer costs, given what was chosen for the items that concern it.
    """

    items: tuple[Item, ...]
    cost: Cost

    @cached_property
    def concerned(self) -> dict[str, tuple[int, ...]]:
        """By layer, the items that its cost depends on."""
        layers = sorted({layer for item in self.items for layer in item.layers})
        return {layer: tuple(i for i, item in enumerate(self.items) if layer in item.layers) for layer in layers}

    @cached_property
    def _apart(self) -> tuple[frozenset[int], ...]:
        """By item, those that stay as they are wherever it does not, whichever of both excludes the other."""
        apart = [set(item.excludes) for item in self.items]
        for i, item in enumerate(self.items):
            for other in item.excludes:
                apart[other].add(i)
        return tuple(map(frozenset, apart))

    @cached_property
    def _costs(self) -> dict[tuple[str, State], float]:
        return {}

    @property
    def start(self) -> State:
        """Everything as it is."""
        return (0,) * len(self.items)

    @cached_property
    def cheapest(self) -> State:
        """A state that costs as little as any move can bring it to."""
        return _settled(self, self.start, DEAREST)

    def layer(self, layer: str, state: State) -> float:
        """What a layer costs."""
        items = self.concerned[layer]
        key = layer, tuple(state[i] for i in items)
        if key not in self._costs:
            self._costs[key] = self.cost(layer, {i: self.items[i].ways[state[i]].what for i in items})
        return self._costs[key]

    def allowed(self, state: State) -> bool:
        """Whether nothing is done beside something that excludes it."""
        return not any(way and state[i] for item, way in zip(self.items, state, strict=True) for i in item.excludes)

    def total(self, state: State) -> float:
        """What all layers that can change cost together."""
        return sum(self.layer(layer, state) for layer in self.concerned)

    def error(self, state: State) -> float:
        """The predicted squared relative error of the net's output."""
        return sum(item.ways[way].error for item, way in zip(self.items, state, strict=True))

    def moved(self, state: State, item: int, way: int) -> State:
        """One item treated otherwise, and all that this excludes, or that excludes it, left as it is."""
        if way == 0:
            return (*state[:item], 0, *state[item + 1 :])
        new = list(state)
        new[item] = way
        for other in self._apart[item]:
            new[other] = 0
        return tuple(new)

    def moves(self, state: State) -> Iterator[tuple[State, float, float]]:
        """All states one move away, and by how much error and cost differ there."""
        for item, each in enumerate(self.items):
            for way in range(len(each.ways)):
                if way != state[item]:
                    new = self.moved(state, item, way)
                    yield new, *self.change(state, new)

    def change(self, state: State, new: State) -> tuple[float, float]:
        """By how much error and cost of two states differ."""
        differ = [i for i in range(len(state)) if state[i] != new[i]]
        error = sum(self.items[i].ways[new[i]].error - self.items[i].ways[state[i]].error for i in differ)
        layers = {layer for i in differ for layer in self.items[i].layers}
        return error, sum(self.layer(layer, new) - self.layer(layer, state) for layer in sorted(layers))


def choose_jointly(joint: Joint, limit: float) -> State | None:
    """The ways with the least sum of errors whose cost keeps the limit; None where none was found that does.

    Few states are enumerated. Of more, cost is given a price, found by halving. At each price items are treated in turn
    as is best with the others as they are, until nothing changes. What is left of the limit is spent by exchanges of
    one item, and of two, as long as the error falls.

    >>> stays, half = Way(None, 0.0), Way("half", 0.1)
    >>> items = tuple(Item(name, (stays, half), frozenset([name])) for name in "ab")
    >>> joint = Joint(items, lambda layer, done: 2.0 if None in done.values() else 1.0)
    >>> choose_jointly(joint, 4), choose_jointly(joint, 3), choose_jointly(joint, 1)
    ((0, 0), (0, 1), None)
    """
    if joint.total(joint.start) <= limit:
        return joint.start
    if prod(len(item.ways) for item in joint.items) <= FEW:
        return _enumerated(joint, limit)
    found = searched(joint, limit)
    return min((_exchanged(joint, state, limit) for state in found), key=joint.error, default=None)


def _enumerated(joint: Joint, limit: float) -> State | None:
    states = product(*(range(len(item.ways)) for item in joint.items))
    return min((s for s in states if joint.allowed(s) and joint.total(s) <= limit), key=joint.error, default=None)


def searched(joint: Joint, limit: float) -> list[State]:
    """States that keep a limit, each settled at another price of cost; the best few, none where none keeps it."""
    low, high = 0.0, 1.0
    while joint.total(state := _settled(joint, joint.start, high)) > limit:
        low, high = high, 8 * high
        if high > DEAREST:
            return []
    kept = {state}
    for _ in range(HALVINGS):
        price = (low + high) / 2
        for start in (state, joint.start):
            found = _settled(joint, start, price)
            if joint.total(found) <= limit:
                kept.add(found)
                state = min(state, found, key=joint.error)
        low, high = (low, price) if joint.total(_settled(joint, state, price)) <= limit else (price, high)
    return sorted(kept, key=joint.error)[:STARTS]


def _settled(joint: Joint, state: State, price: float) -> State:
    """The state that no single move betters where cost has a price."""
    for _ in range(PASSES):
        before = state
        for item, each in enumerate(joint.items):
            best, least = state, 0.0
            for way in range(len(each.ways)):
                new = joint.moved(state, item, way)
                error, cost = joint.change(state, new)
                if error + price * cost < least - 1e-15:
                    best, least = new, error + price * cost
            state = best
        if state == before:
            break
    return state


def _exchanged(joint: Joint, state: State, limit: float) -> State:
    """Single moves, then two at once, as long as the error falls within the limit."""
    while True:
        spare = limit - joint.total(state)
        moves = list(joint.moves(state))
        single = min(((error, new) for new, error, cost in moves if cost <= spare), default=(0.0, state))
        if single[0] < -1e-15:
            state = single[1]
            continue
        better = [move for move in moves if move[1] < 0]
        cheaper = [move for move in moves if move[2] < 0]
        found = _pair(joint, state, better, cheaper, spare)
        if found is None:
            return state
        state = found


def _pair(
    joint: Joint,
    state: State,
    better: Sequence[tuple[State, float, float]],
    cheaper: Sequence[tuple[State, float, float]],
    spare: float,
) -> State | None:
    """Of two moves, one for the error and one that pays for it, those that lower the error most."""
    least, best = -1e-15, None
    for (one, gain, dear), (other, loss, saved) in product(better, cheaper):
        if gain + loss < least and dear + saved <= spare * (1 + 1e-9) + 1e-9:
            new = _both(joint, state, one, other)
            error, cost = joint.change(state, new)
            if error < least and cost <= spare:
                least, best = error, new
    return best


def _both(joint: Joint, state: State, one: State, other: State) -> State:
    """A move, and another behind it."""
    for item, (now, new) in enumerate(zip(state, other, strict=True)):
        if now != new and new:
            return joint.moved(one, item, new)
    return tuple(new if now != new else was for now, new, was in zip(state, other, one, strict=True))
