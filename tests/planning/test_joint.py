"""One limit for layers, channels and units: held to enumeration on small nets."""

from collections.abc import Mapping
from itertools import product
from math import prod
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convsmith.planning.joint import Item, Joint, Way, choose_jointly


def enumerated(joint: Joint, limit: float) -> float | None:
    """The least error of all states that keep the limit."""
    states = product(*(range(len(item.ways)) for item in joint.items))
    return min((joint.error(s) for s in states if joint.allowed(s) and joint.total(s) <= limit), default=None)


@st.composite
def chains(draw: st.DrawFn) -> tuple[Joint, float]:
    """Convolutions in a row whose widths multiply, each of which may become a block, and a unit that may go."""
    count = draw(st.integers(2, 4))
    part = st.floats(0.1, 0.9)
    errors = st.floats(0.01, 1.0)
    names = [f"c{i}" for i in range(count)]
    groups = [
        Item(f"w{i}", (Way(1.0, 0.0), *(Way(draw(part), draw(errors)) for _ in range(2))), frozenset(names[i : i + 2]))
        for i in range(count - 1)
    ]
    blocks = [
        Item(
            name, (Way(None, 0.0), Way(draw(part), draw(errors))), frozenset([name]),
            frozenset(g for g in range(count - 1) if name in groups[g].layers),
        )
        for name in names
    ]  # fmt: skip
    gone = Item(
        "unit", (Way(None, 0.0), Way("gone", draw(errors))), frozenset(names[:2]),
        frozenset([0, count - 1, count]),
    )  # fmt: skip

    def cost(layer: str, done: Mapping[int, Any]) -> float:
        made = 100.0
        for what in done.values():
            made *= 0.0 if what == "gone" else 1.0 if what is None else what
        return made

    joint = Joint((*groups, *blocks, gone), cost)
    return joint, draw(st.floats(0.2, 1.0)) * joint.total((0,) * len(joint.items))


@settings(max_examples=100, deadline=None)
@given(chains())
def test_small_nets_are_decided_as_by_enumeration(drawn: tuple[Joint, float]) -> None:
    joint, limit = drawn
    found, least = choose_jointly(joint, limit), enumerated(joint, limit)
    assert (found is None) == (least is None)
    if found is not None and least is not None:
        assert joint.allowed(found) and joint.total(found) <= limit
        assert joint.error(found) <= least + 1e-12


def long_chain(seed: int, count: int = 12) -> Joint:
    """Convolutions in a row whose widths multiply, too many to enumerate."""
    draw = Random(seed)
    groups = [
        Item(
            f"w{i}",
            (Way(1.0, 0.0), *(Way(share, draw.uniform(0.5, 2) * (1 - share) ** 2) for share in (0.75, 0.5, 0.25))),
            frozenset([f"c{i}", f"c{i + 1}"]),
        )
        for i in range(count - 1)
    ]

    def cost(layer: str, done: Mapping[int, Any]) -> float:
        return 100.0 * prod(what for what in done.values())

    return Joint(tuple(groups), cost)


@pytest.mark.parametrize("seed", range(12))
def test_long_nets_are_decided_better_than_by_one_width_for_all(seed: int) -> None:
    joint = long_chain(seed)
    for way in (1, 2, 3):
        uniform = (way,) * len(joint.items)
        found = choose_jointly(joint, joint.total(uniform))
        assert found is not None and joint.total(found) <= joint.total(uniform) * (1 + 1e-9)
        assert joint.error(found) < joint.error(uniform) or (way == 3 and found == uniform)  # the cheapest there is


def test_a_limit_that_nothing_keeps_is_none() -> None:
    joint = long_chain(0)
    assert choose_jointly(joint, joint.total((3,) * len(joint.items)) / 2) is None
