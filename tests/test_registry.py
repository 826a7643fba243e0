"""Named tables refuse duplicates and suggest the nearest name."""

import pytest

from convsmith.errors import ConvsmithError
from convsmith.registry import Registry


def table() -> Registry[int]:
    registry = Registry[int]("color")
    for number, name in enumerate(("red", "green", "blue")):
        registry.add(name, number)
    return registry


def test_a_registry_is_a_mapping_in_order_of_entry() -> None:
    assert dict(table()) == {"red": 0, "green": 1, "blue": 2}
    assert "red" in table()
    assert len(table()) == 3


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gren", "Unknown color 'gren'; did you mean green, red?"),
        ("zzz", "Unknown color 'zzz'; known: blue, green, red."),
        ("", "Unknown color ''; known: blue, green, red."),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, told: str) -> None:
    with pytest.raises(ConvsmithError) as error:
        table()[name]
    assert str(error.value) == told
    assert name not in table()


def test_a_name_is_given_once() -> None:
    registry = table()
    with pytest.raises(ValueError, match="'red' is registered twice"):
        registry.register("cyan", "red")(7)
    assert registry["red"] == 0
