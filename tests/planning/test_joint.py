"""One limit for layers, channels and units: held to enumeration on small nets."""

from collections.abc import Mapping
from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from convsmith.planning.joint import Item, Joint, State, Way, choose_jointly


def allowed(joint: Joint, state: State) -> bool:
    return not any(
        way and state[other] for item, way in zip(joint.items, state, strict=True) for other in item.excludes
    )


def enumerated(joint: Joint, limit: float) -> float | None:
    """The least error of all states that keep the limit."""
    states = product(*(range(len(item.ways)) for item in joint.items))
    return min((joint.error(s) for s in states if allowed(joint, s) and joint.total(s) <= limit), default=None)


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


@settings(max_examples=200, deadline=None)
@given(chains())
def test_no_plan_breaks_the_limit_and_few_can_be_bettered(drawn: tuple[Joint, float]) -> None:
    joint, limit = drawn
    found, least = choose_jointly(joint, limit), enumerated(joint, limit)
    assert (found is None) == (least is None)
    if found is not None and least is not None:
        assert allowed(joint, found) and joint.total(found) <= limit * (1 + 1e-9)
        assert joint.error(found) <= 1.5 * least + 1e-9
