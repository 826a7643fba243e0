"""The table of docs/will-it-work.md that holds what bench/coverage.py found: `python bench/coverage_page.py`."""

import json
from collections.abc import Mapping
from pathlib import Path

from convsmith.files import write_text

RESULT = Path(__file__).parent / "results" / "coverage.json"
PAGE = Path(__file__).parent.parent / "docs" / "will-it-work.md"
OPEN, CLOSE = "<!-- coverage -->\n", "<!-- /coverage -->"
COLUMNS = ("nets", "analyzed", "MACs equal torch's", "followed to the end", "on numbers")
HEAD = ("nets of", "nets", "analyzed", "MACs equal", "followed to the end", "run on numbers")


def table(families: Mapping[str, Mapping[str, int]]) -> str:
    """A row a family; the decoders of segmentation-models-pytorch are one."""
    told: dict[str, list[int]] = {}
    for family, counts in families.items():
        name = "segmentation-models-pytorch" if family.startswith("smp/") else family.replace("/", ", ")
        own = told.setdefault(name, [0] * len(COLUMNS))
        told[name] = [a + counts[column] for a, column in zip(own, COLUMNS, strict=True)]
    lines = [HEAD, ["---", *["---:"] * len(COLUMNS)], *([name, *counts] for name, counts in told.items())]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def main() -> None:
    page, families = PAGE.read_text(), json.loads(RESULT.read_text())["families"]
    before, _, rest = page.partition(OPEN)
    write_text(PAGE, before + OPEN + table(families) + rest[rest.index(CLOSE) :])


if __name__ == "__main__":
    main()
