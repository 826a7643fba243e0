"""The table of an expansion: what the net as it is, the expanded and the decomposed one cost and attain."""

from pathlib import Path

from rich.console import RenderableType

from convsmith.optimize import BASELINE, DECOMPOSED, EXPANDED, NORMS, RECOVERED, STARTS, TRAINED
from convsmith.report.numbers import count, percent
from convsmith.report.records import NetRecords, read_net
from convsmith.report.tables import grid


def expansion_table(folder: str | Path) -> RenderableType:
    """The three nets of a run of `convsmith expand` side by side, as far as it has come."""
    nets = [read_net(Path(folder) / name) for name in (BASELINE, EXPANDED, DECOMPOSED)]
    table = grid("Expanded, trained, decomposed again", "", *(f">{net.name}" for net in nets))
    for row in expansion_rows(nets):
        table.add_row(*row)
    return table


def expansion_rows(nets: list[NetRecords]) -> list[tuple[str, ...]]:
    """Names and the value of each net; accuracies in the order in which a run measures them."""
    rows = [
        ("parameters", *(count(net.scores.params) if net.scores else "" for net in nets)),
        ("MACs", *(count(net.scores.macs) if net.scores else "" for net in nets)),
    ]
    columns = [{evaluation.when: percent(evaluation.top1) for evaluation in net.evaluations} for net in nets]
    order = (*STARTS, NORMS, TRAINED, RECOVERED)
    for when in (when for when in order if any(when in net for net in columns)):
        rows.append((f"top-1 {when}", *(net.get(when, "") for net in columns)))
    return rows
