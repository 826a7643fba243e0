"""Sections that pages share: accuracy after each step, and a plan."""

from collections.abc import Sequence

from convsmith.export import ExportCheck
from convsmith.optimize import NORMS
from convsmith.plan import Plan
from convsmith.report import charts
from convsmith.report.charts import Figure
from convsmith.report.html import plot, section, table
from convsmith.report.numbers import percent
from convsmith.report.records import NetRecords, Step
from convsmith.report.tables import ACCURACY_COLUMNS, accuracy_rows, edit_rows, refusal_rows, total_rows

NORMS_NOTE = "Re-estimated BatchNorm statistics are kept where held-out training images get no worse by them."


def accuracy_section(nets: Sequence[NetRecords], figures: dict[str, Figure]) -> list[str]:
    """The accuracy of nets after each of their steps as chart and table; nothing where none was evaluated."""
    evaluations = [evaluation for net in nets for evaluation in net.evaluations]
    curves: dict[str, Sequence[Step]] = {net.teacher.when: [Step.of(net.teacher)] for net in nets if net.teacher}
    curves |= {net.name: net.steps for net in nets}
    if not any(curves.values()):
        return []
    parts = []
    if any(map(charts.moves, curves.values())):
        figures["accuracy"] = charts.accuracy(curves)
        parts.append(plot("accuracy"))
    if evaluations:
        parts.append(_by_net(nets, ACCURACY_COLUMNS, accuracy_rows(nets)))
    epochs = [
        (net.name, step.name, percent(step.top1), percent(step.top5), f"{step.loss:.4f}")
        for net in nets
        for step in net.steps
        if step.epoch is not None
    ]
    if epochs:
        every = _by_net(nets, ("step", ">top-1", ">top-5", ">loss"), epochs)
        parts.append(f"<details><summary>Every epoch</summary>{every}</details>")
    note = f"On {evaluations[0].images:,} test images. " if evaluations else "On the test images. "
    return [
        section("Accuracy after each step", note + NORMS_NOTE * any(each.when == NORMS for each in evaluations), *parts)
    ]


def _by_net(nets: Sequence[NetRecords], columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is the net, where there are several."""
    first = 0 if len(nets) > 1 else 1
    return table(("net", *columns)[first:], [row[first:] for row in rows])


def plan_section(name: str, plan: Plan) -> str:
    """A plan's totals, edits and refusals."""
    totals = table(("", ">base", ">new", ">change"), total_rows(plan))
    edits = table(("layer", "edit", "why"), edit_rows(plan)) if plan.edits else "<p>None.</p>"
    refused = table(("layer", "why"), refusal_rows(plan.refusals)) if plan.refusals else "<p>Nothing.</p>"
    return section(f"{name}: the plan", "", totals, "<h3>Edits</h3>", edits, "<h3>Left alone</h3>", refused)


EXPORTS_NOTE = (
    "Each float file was run against its model on random images; the error is relative to the output's largest value. "
    "The error of an int8 file is the output's root mean square over the calibration images, relative to its spread."
)


def exports_section(nets: Sequence[NetRecords]) -> list[str]:
    """The files that were written of nets; nothing where there are none."""
    rows = [_export_row(net.name, file) for net in nets for file in net.exports]
    columns = ("file", ">opset", "numbers", ">size", ">error", ">top-1", "stay in float")
    return [section("Files", EXPORTS_NOTE, table(columns, rows))] if rows else []


def _export_row(net: str, file: ExportCheck) -> tuple[str, ...]:
    accuracy = "" if file.accuracy is None else f"{percent(file.accuracy.fp32)} -> {percent(file.accuracy.int8)}"
    error = file.max_rel_error if file.output_error is None else file.output_error
    return (
        f"{net}/{file.path.name}", str(file.opset or ""), file.precision, f"{file.bytes / 1e6:.2f} MB",
        f"{error:.1e}" if error else "0", accuracy, f"{len(file.in_float)} layers" if file.in_float else "",
    )  # fmt: skip
