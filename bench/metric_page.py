"""The tables of docs/metric.md that hold what bench/metric.py measured."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from convsmith.files import write_text

PAGE = Path(__file__).parent.parent / "docs" / "metric.md"
Found = Mapping[str, Any]
Row = Sequence[object]


def scores(found: Found) -> Iterator[Row]:
    """How each score ranks the nets of NAS-Bench-Macro; last, what training itself says of its own ranks."""
    yield "score", "Kendall", "Spearman", "Kendall within bins", "regret, points"
    for name, told in found["scores"].items():
        yield name, *(f"{told[key]:.{digits}f}" for key, digits in FIGURES.items())
    yield "any net of the bin", "", "", "", f"{found['random']['regret']:.2f}"
    runs = found["run against run"]
    yield "one training run against another", f"{min(runs):.3f} to {max(runs):.3f}", "", "", ""


FIGURES = {"kendall": 3, "spearman": 3, "kendall within bins": 3, "regret": 2}


def halves(found: Found) -> Iterator[Row]:
    """What was fitted on one half of the nets, and how it ranks the other: least and most over the seeds."""
    yield "fitted on one half", "alpha", "power", "Kendall there", "Kendall, other half", "regret, other half"
    for name, key in FITTED.items():
        own = found[key]
        rest = [[one["other half"][figure] for one in own] for figure in ("kendall", "regret")]
        fitted = [[one[key] for one in own] for key in ("alpha", "power", "kendall fitted")]
        yield (
            name,
            *(among(each, digits) for each, digits in zip(fitted, (0, 2, 3), strict=True)),
            among(rest[0]),
            among(rest[1], 2),
        )
    for name, key in (("nothing: value", "halves"), ("nothing: exact value", "halves, exact")):
        rest = [[one["other half, the product's"][figure] for one in found[key]] for figure in ("kendall", "regret")]
        yield name, "3", "0.25", "", among(rest[0]), among(rest[1], 2)


FITTED = {
    "power": "halves", "power, exact convention": "halves, exact", "alpha and power": "halves, alpha too",
}  # fmt: skip


def among(values: Sequence[float], digits: int = 3) -> str:
    """The least and the most, or the one that all are.

    >>> among([0.25, 0.25]), among([0.7512, 0.7601])
    ('0.25', '0.751 to 0.760')
    """
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:.{digits}f} to {high:.{digits}f}"


def blocks(found: Found) -> Iterator[Row]:
    """Kendall among nets of as many blocks."""
    own = found["by blocks"]
    numbers = list(own["value"])
    yield "blocks", *numbers
    yield "nets", *(found["nets by blocks"][number] for number in numbers)
    for name, told in own.items():
        yield name, *(f"{told[number]:.3f}" for number in numbers)


def times(found: Found) -> Iterator[Row]:
    """Milliseconds of processor time that a net of NAS-Bench-Macro takes, step by step: wall time is in the file."""
    yield "", *found["ms"]
    yield "ms a net", *(f"{told['processor median']:.1f}" for told in found["ms"].values())


def regnets(found: Found) -> Iterator[Row]:
    """Where widths vary: Kendall over torchvision's RegNets."""
    own = found["regnets"]["kendall"]
    yield f"over {len(found['regnets']['nets'])} RegNets", "parameters", "MACs", "gain", "value"
    yield "Kendall", *(f"{own[key]:.3f}" for key in ("params", "macs", "gain", "value"))


def optima(found: Found) -> Iterator[Row]:
    """What the organizer makes of nets by gain and by value: all without a budget, and where the two differ."""
    yield "net", "input", "MACs", "most gain", "most value"
    for row in found["optima"]:
        same = row["by gain"] == row["by value"]
        if row["MACs"] is None or not same:
            limit = "" if row["MACs"] is None else f"{row['MACs']:g}x"
            spreads = [",".join(map(str, row[key])) for key in ("by gain", "by value")]
            yield row["net"].removeprefix("timm:"), row["input"], limit, spreads[0], "the same" if same else spreads[1]


def forward(found: Found) -> Iterator[Row]:
    """What a forward pass knows, and what it adds, on nets drawn at random."""
    own = found["forward pass"]
    yield f"{own['nets']} nets", *own["kendall"]
    yield "Kendall", *(f"{tau:.3f}" for tau in own["kendall"].values())


TABLES: Mapping[str, Callable[[Found], Iterator[Row]]] = {
    "macro": scores, "macro halves": halves, "macro forward": forward, "macro blocks": blocks, "regnets": regnets,
    "optima": optima, "macro ms": times,
}  # fmt: skip


def markdown(rows: Iterator[Row]) -> str:
    """A table, all but its first column to the right."""
    head, *rest = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rest]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def write_tables(found: Found) -> None:
    """Put the tables between their marks in the page."""
    text = PAGE.read_text()
    for name, table in TABLES.items():
        before, _, rest = text.partition(f"<!-- {name} -->\n")
        text = f"{before}<!-- {name} -->\n{markdown(table(found))}{rest[rest.index(f'<!-- /{name} -->') :]}"
    write_text(PAGE, text)
