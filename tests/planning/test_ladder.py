"""What gives way under a limit: against enumeration of what the rule says, and what joints do."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convsmith.planning.ladder import RUNG, Joint, Priced, give_way, ladder


@dataclass(frozen=True)
class Rung:
    macs: int
    together: bool = False


def rungs(*macs: int) -> list[Rung]:
    return [Rung(each) for each in macs]


@pytest.mark.parametrize(
    ("found", "start", "taken"),
    [
        ([100, 90, 85, 84, 80, 70], 100, [85, 70]),
        ([90, 80], 90, [80]),
        ([90, 80], 80, []),
        ([85, 72, 61, 60], 100, [85, 72, 61, 60]),
        ([], 10, []),
    ],
)
def test_each_rung_of_a_ladder_is_a_step_down_and_the_last_is_the_cheapest(
    found: list[int], start: int, taken: list[int]
) -> None:
    assert [rung.macs for rung in ladder(rungs(*found), start)] == taken
    assert all(b <= RUNG * a for a, b in pairwise([start, *taken[:-1]]))


def priced(*costs: int, together: bool = False) -> tuple[Priced[Rung], ...]:
    return tuple(Priced(Rung(cost, together), cost) for cost in costs)


JOINT = Joint((0, 1), (priced(20, 40, together=True), priced(10, 5, together=True)))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (300, [100, 200]),
        (299, [100, 150]),  # of equals the dearest
        (249, [50, 150]),
        (199, [50, 60]),
        (109, [20, 40]),  # the ladder of the first is at its end: both go on together
        (59, [10, 5]),
        (0, [10, 5]),  # no less can be had
    ],
)
def test_the_dearest_gives_way_and_below_its_ladder_all_of_a_joint(limit: int, expected: list[int]) -> None:
    ladders = [priced(50), priced(150, 60)]
    chosen, total = give_way([100, 200], ladders, [JOINT], limit)
    assert [own if rung is None else rung.macs for own, rung in zip([100, 200], chosen, strict=True)] == expected
    assert total == sum(expected)
    assert len({rung.together for rung in chosen if rung}) <= 1


def test_a_joint_takes_those_along_that_had_rungs_left() -> None:
    chosen, _ = give_way([100, 100, 100], [[], priced(90, 80), priced(50)], [JOINT], 250)
    assert [rung and rung.macs for rung in chosen] == [20, 40, None]
    chosen, _ = give_way([100, 100, 100], [[], priced(90, 80), priced(50)], [JOINT], 0)
    assert [rung and rung.macs for rung in chosen] == [10, 5, 50]


@given(
    st.lists(st.lists(st.integers(1, 99), max_size=4).map(lambda x: sorted(x, reverse=True)), min_size=1, max_size=5),
    st.integers(0, 500),
)
def test_a_limit_is_kept_where_it_can_be_and_no_step_is_in_vain(found: list[list[int]], limit: int) -> None:
    macs = [100] * len(found)
    chosen, total = give_way(macs, [priced(*each) for each in found], [], limit)
    now = [100 if rung is None else rung.macs for rung in chosen]
    assert total == sum(now)
    assert total <= limit or now == [min(each, default=100) for each in found]
    if total < 100 * len(found):  # one step back, of the last to give way, was too much
        assert any(total - macs + before > limit for macs, before in zip(now, _before(now, found), strict=True))


def _before(now: list[int], found: list[list[int]]) -> list[int]:
    """For each layer the rung above the one that it stands on."""
    return [([100, *own][own.index(macs)] if macs in own else 100) for macs, own in zip(now, found, strict=True)]
