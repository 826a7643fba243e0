"""Joins of reaches in which all elements agree, which take a shortcut: element by element as the parts are."""

import numpy as np
import pytest

from convsmith.reach import Reach
from convsmith.reach.unions import concatenate, union
from convsmith.reach.windows import Taps


def part(first: int, kernel: int) -> Reach:
    """One channel of three, seen through a kernel: every element of it sees that channel alone."""
    x = Reach.source((3, 8, 8)).select(1, Taps.window(3, first, 1))
    for dim in (2, 3):
        x = x.select(dim, Taps.slide(8, kernel, 1, kernel // 2))
    return x


PLACES = [(0, 0, 0, 0), (0, 0, 3, 5), (0, 0, 7, 7)]


@pytest.mark.parametrize("place", PLACES)
def test_a_union_sees_the_channels_and_the_windows_of_all(place: tuple[int, ...]) -> None:
    parts = [part(0, 3), part(2, 5)]
    assert all(one.uniform for one in parts)
    channels, spans = union(parts, (1, 1, 8, 8)).at(place)
    seen = [one.at(place) for one in parts]
    assert channels.tolist() == np.logical_or(seen[0][0], seen[1][0]).tolist() == [True, False, True]
    ends = zip(seen[0][1], seen[1][1], strict=True)
    assert spans == tuple((min(a[0], b[0]), max(a[1], b[1])) for a, b in ends)


@pytest.mark.parametrize("place", PLACES)
def test_parts_in_line_stay_what_they_are(place: tuple[int, ...]) -> None:
    parts = [part(0, 3), part(2, 5), part(0, 3)]
    joined = concatenate(parts, 1)
    assert joined.shape == (1, 3, 8, 8)
    for channel, one in enumerate(parts):
        channels, spans = joined.at((0, channel, *place[2:]))
        assert (channels.tolist(), spans) == (one.at(place)[0].tolist(), one.at(place)[1])
