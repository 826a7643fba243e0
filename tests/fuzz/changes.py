"""Changes at random that every kind of hostile file shares: of bytes, and of JSON records."""

import os
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

NUMBERS = (0, 1, -1, 2, 3, 7, 64, 1000, 10**5, 10**6, 10**9, 2**31, 2**40, 2**62, -(2**62))
MARK = "ran"  # what code of a file makes, in the folder that the file lies in
CODE = "__import__('os').mkdir('ran')"
TEXTS = (
    "",
    " ",
    "x",
    "0",
    "..",
    "/",
    "../../x",
    "\0",
    "\ud800",
    "é\n\x1b[31m",
    "a" * 5000,
    CODE,
    "nan",
    "os:abort",
    "-",
)
VALUES = (
    None, True, False, *NUMBERS, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"), *TEXTS, [], {}, [[]],
    [None], {"": 0},
)  # fmt: skip


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.mark = folder / MARK

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def in_bytes(data: bytes, random: Random) -> bytes:
    """A few bytes wrong, a stretch taken out or said twice, or the end cut off."""
    changed = bytearray(data or b"0")
    for _ in range(random.randint(1, 6)):
        changed[random.randrange(len(changed))] = random.choice((0, 255, 127, random.randrange(256)))
    kind, at = random.randrange(4), random.randrange(len(changed))
    if kind == 0:
        return bytes(changed[: random.choice((0, 1, at))])
    if kind == 1:
        return bytes(changed[:at] + changed[at + random.randint(1, 64) :])
    return bytes(changed[:at] + changed[max(0, at - 64) :]) if kind == 2 else bytes(changed)


def in_json(record: Any, random: Random, times: int = 3) -> Any:
    """A JSON record with up to so many of its parts replaced, left out, said twice, or exchanged."""
    for _ in range(random.randint(1, times)):
        places = list(_places(record))
        if not places:
            return random.choice(VALUES)
        holder, key = random.choice(places)
        _change(holder, key, places, random)
    return record


def _change(holder: Any, key: Any, places: list[tuple[Any, Any]], random: Random) -> None:
    kind, value = random.randrange(6), holder[key]
    if kind == 0:
        del holder[key]
    elif kind == 1:
        other, name = random.choice(places)
        holder[key] = deepcopy(other[name])
    elif kind == 2 and isinstance(holder, list):
        holder.extend([value] * random.choice((1, 2, 300)))
    elif kind == 2:
        holder[random.choice(TEXTS)] = value
    elif kind == 3 and isinstance(value, int) and not isinstance(value, bool):
        holder[key] = random.choice((value + 1, value - 1, 2 * value, -value, random.choice(NUMBERS)))
    else:
        holder[key] = random.choice(VALUES)


def _places(record: Any) -> Iterator[tuple[Any, Any]]:
    """Every part of a record, as what holds it and under which key."""
    inside = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    for key, value in list(inside):
        yield record, key
        yield from _places(value)
