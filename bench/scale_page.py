"""The tables of docs/scale.md that hold what bench/scale.py measured: `python bench/scale_page.py`."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from convsmith.files import write_text

RESULT = Path(__file__).parent / "results" / "scale.json"
PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
Lines = Sequence[Sequence[object]]


def two(found: Mapping[str, Any]) -> Lines:
    """A row a command: processor time of one process, of the busier of two, and their ratio with its range."""
    rows: list[Sequence[object]] = [("command", "one process, s", "the busier of two, s", "ratio", "from", "to")]
    for name, own in found["seconds"].items():
        least, middle, most = found["one_by_two"][name]
        seconds = (f"{median(own[count]):.1f}" for count in "12")
        rows.append((f"`{name}`", *seconds, f"{middle:.2f}", f"{least:.2f}", f"{most:.2f}"))
    return rows


def four(found: Mapping[str, Any]) -> Lines:
    """What was simulated with four processes, and what came out."""
    uneven, slow = found["four_uneven"], found["four_slow"]
    cpu = sorted(uneven["cpu"])
    same = "the plan of one" if uneven["same_plan"] else "another plan than one"
    told = f"{same}; from {cpu[0]:.1f} to {cpu[-1]:.1f} s of processor time a process"
    even, paused = (f"{max(slow[key]):.1f}" for key in ("even", "slow"))
    steps = (
        f"{slow['steps']} steps with a pause of {slow['pause']} s each, {slow['steps'] * slow['pause']:.1f} s in all"
    )
    return [
        ("four processes", "what came out"),
        (f"`decompose` on {found['images']} images in batches of 64: two have no batch", told),
        (f"`train`, one process slow: {steps}", f"an epoch takes {paused} s of wall time, where it took {even} s"),
    ]


TABLES: Mapping[str, Callable[[Mapping[str, Any]], Lines]] = {"two": two, "four": four}


def markdown(lines: Lines) -> str:
    """A table, numbers to the right where it has several columns of them."""
    head, *rest = lines
    rule = ["---", *["---:" if len(head) > 2 else "---"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in (head, rule, *rest))


def main() -> None:
    page, found = PAGE.read_text(), json.loads(RESULT.read_text())
    for name, table in TABLES.items():
        before, _, rest = page.partition(f"<!-- {name} -->\n")
        page = f"{before}<!-- {name} -->\n{markdown(table(found))}{rest[rest.index(f'<!-- /{name} -->') :]}"
    write_text(PAGE, page)


if __name__ == "__main__":
    main()
