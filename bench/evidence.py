"""docs/evidence.md from the result files: a row a claim, and what was trained so far. `python bench/evidence.py`."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import claims_deployed
import claims_measured
import claims_trained
from claim import CLAIMS, NOT_MEASURED, OURS, Claim, Told
from convsmith.files import write_text

RULES = (claims_trained, claims_measured, claims_deployed)  # importing them registers what they claim
RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "evidence.md"
Row = Sequence[str]


def outcome(claim: Claim) -> Told:
    """The word for a claim, and what came out."""
    path = RESULTS / claim.result
    if not claim.result:
        return claim.judge({})
    if not path.is_file():
        return NOT_MEASURED, "no result file yet"
    return claim.judge(json.loads(path.read_text()))


def claims(ours: bool) -> Iterator[Row]:
    """The claims of papers, or ours: what is claimed, by whom, measured by what, and how it came out."""
    yield "claim", "source", "script", "result file", "what came out", "word"
    for claim in CLAIMS:
        if (claim.source == OURS) is ours:
            word, told = outcome(claim)
            script, result = (f"`{text}`" if text else "" for text in (claim.script, claim.result))
            yield claim.text, claim.source, script, result, told, f"**{word}**"


def trained(name: str) -> Iterator[Row]:
    """The trained nets of a result file: costs, and accuracy over seeds."""
    yield "table", "net", "MMACs", "M parameters", "gain", "top-1 %", "deviation", "seeds"
    path = RESULTS / name
    cells = json.loads(path.read_text())["cells"] if path.is_file() else {}
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for key, cell in cells.items():
        if "top1" in cell:
            rows.setdefault(key.rpartition("/")[0], []).append(cell)
    for key, own in rows.items():
        table, _, row = key.partition("/")
        top1, first = [100 * cell["top1"] for cell in own], own[0]
        costs = f"{first['macs'] / 1e6:.1f}", f"{first['params'] / 1e6:.2f}", f"{first['gain']:.2f}"
        spread = f"{stdev(top1):.2f}" if len(top1) > 1 else ""
        yield table, row, *costs, f"{mean(top1):.2f}", spread, str(len(top1))


TABLES: Mapping[str, Callable[[], Iterator[Row]]] = {
    "papers": lambda: claims(ours=False), "ours": lambda: claims(ours=True),
    "gpu": lambda: trained("gpu.json"), "small": lambda: trained("small.json"),
}  # fmt: skip


def markdown(rows: Iterator[Row]) -> str:
    """A table; or that it is empty."""
    head, *rest = rows
    if not rest:
        return "Nothing yet.\n"
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *rest))


def main() -> None:
    """Put the tables between their marks in the page."""
    text = PAGE.read_text()
    for name, table in TABLES.items():
        before, _, rest = text.partition(f"<!-- {name} -->\n")
        text = f"{before}<!-- {name} -->\n{markdown(table())}{rest[rest.index(f'<!-- /{name} -->') :]}"
    write_text(PAGE, text)


if __name__ == "__main__":
    main()
