"""Tables for the terminal."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from convsmith.bench import FASTER, SLOWER, Bench, Latency
from convsmith.plan import Edit, Merge, Narrow, Plan, Refusal, Remove, Repeat, Replace
from convsmith.planning.divisions import Choice
from convsmith.planning.search.sequences import Found
from convsmith.report.grids import Grid
from convsmith.report.numbers import change, count, milliseconds, percent
from convsmith.report.records import NetRecords, RunRecords
from convsmith.text import times

NAMES = 3  # of layers in a row that stands for more
VERDICT_STYLES = {FASTER: "green", SLOWER: "red"}


def plan_table(plan: Plan) -> RenderableType:
    """A plan: totals before and after, edits and refusals with their reasons; alike ones stand together."""
    totals = grid(f"Plan for {plan.model} on {times(plan.input)}", "", ">base", ">new", ">")
    for row in total_rows(plan):
        totals.add_row(*row)
    rows = edit_rows(plan)
    same = len({why for *_, why in rows}) == 1 and len(rows) > 1
    edits = grid("", "layer", "edit", *([] if same else ["why"]))
    for cells in rows:
        edits.add_row(*(cells[:2] if same else cells))
    refused = grid("Left alone", "layer", "why")
    for names, why in refusal_rows(plan.refusals):
        refused.add_row(names, why)
    parts: list[RenderableType] = [totals, edits if plan.edits else Text("No edits.")]
    parts += [Text(f"why, in every row: {rows[0][2]}", style="dim")] if same else []
    parts += [refused] if plan.refusals else []
    return Group(*parts)


def total_rows(plan: Plan) -> list[tuple[str, str, str, str]]:
    """What a plan changes: names, both values, and what the second is to the first."""
    base, new = plan.base, plan.new
    return [
        *_unit_rows(base.blocks, new.blocks),
        ("gain", f"{base.gain:.3f}", f"{new.gain:.3f}", f"{new.gain - base.gain:+.3f}"),
        *_value_rows(base.value, new.value),
        ("parameters", count(base.params), count(new.params), change(base.params, new.params)),
        ("MACs", count(base.macs), count(new.macs), change(base.macs, new.macs)),
        *_latency_rows_of(plan),
    ]


def _latency_rows_of(plan: Plan) -> list[tuple[str, str, str, str]]:
    """What times were predicted, and what was measured in the target."""
    target = plan.asked.target if plan.asked else None
    told = "ms an image, by module" if target is None else f"ms in {target}, predicted"
    times = [(told, plan.latency_ms), (f"ms in {target}, measured", plan.measured_ms)]
    return [(name, f"{ms[0]:.3g}", f"{ms[1]:.3g}", change(*ms)) for name, ms in times if ms is not None]


def _value_rows(before: float | None, after: float | None) -> list[tuple[str, str, str, str]]:
    """The sum of gain^(1/4); nothing for plans that do not tell it."""
    if before is None or after is None:
        return []
    return [("value", f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}")]


def _unit_rows(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[str, str, str, str]]:
    """How many units the stages hold; nothing where none of them repeats one."""
    return [("units per stage", _list(before), _list(after), "")] if any(before) else []


def edit_rows(plan: Plan) -> list[tuple[str, str, str]]:
    """Layers, what is done to them, and why; alike ones share a row, in order of their first."""
    alike: dict[tuple[str, str], list[Edit]] = {}
    for edit in plan.edits:
        alike.setdefault((_what(edit), edit.reason), []).append(edit)
    return [
        (_names([_edited(edit) for edit in edits]), what + _errors(edits), why) for (what, why), edits in alike.items()
    ]


def _errors(edits: Sequence[Edit]) -> str:
    """The errors of carried weights, least to largest."""
    errors = [edit.error for edit in edits if isinstance(edit, Replace) and edit.error is not None]
    if not errors:
        return ""
    least, most = f"{min(errors):.3f}", f"{max(errors):.3f}"
    return f", relative error {least}" + (f" to {most}" if most != least else "")


def refusal_rows(refusals: Sequence[Refusal]) -> list[tuple[str, str]]:
    """Layers left alone by reason, in order of their first."""
    by_reason: dict[str, list[str]] = {}
    for refusal in refusals:
        by_reason.setdefault(refusal.reason, []).append(refusal.layer)
    return [(_names(layers), reason) for reason, layers in by_reason.items()]


def _edited(edit: Edit) -> str:
    if isinstance(edit, Narrow):
        return edit.group[0]
    return edit.layer if isinstance(edit, Replace) else edit.unit[0]


def _what(edit: Edit) -> str:
    if isinstance(edit, Repeat):
        return f"repeat x{edit.copies}"
    if isinstance(edit, Remove):
        return "remove"
    if isinstance(edit, Merge):
        return "merge into one"
    if isinstance(edit, Narrow):
        return edit.block
    less = " (in a row)" if edit.window else " (sees less)"
    return edit.block if edit.quality else edit.block + less


def pareto_table(choices: Sequence[Choice]) -> RenderableType:
    """Units per stage that no other choice beats; costs are differences to the net as it is."""
    table = grid(
        "Units per stage that nothing beats (costs: difference to the net as it is)",
        "units per stage",
        ">gain",
        ">value",
        ">params",
        ">MACs",
    )
    for choice in choices:
        sums = f"{choice.gain:.3f}", f"{choice.value:.3f}"
        table.add_row(_list(choice.blocks), *sums, _signed(choice.params), _signed(choice.macs))
    return table


def bench_table(bench: Bench) -> RenderableType:
    """Latencies with quartiles, ratios with their 95 % bounds, and what could not be measured."""
    title = f"Latency on {times(bench.input)}, {bench.threads} threads"
    table = grid(title, "model", "runtime", ">batch", ">median", ">quartiles", ">ratio", "")
    for cell in bench.cells:
        spread = f"{cell.q1_ms:.3g}-{cell.q3_ms:.3g}"
        ratio = f"{cell.ratio:.2f} ({cell.ratio_low:.2f}-{cell.ratio_high:.2f})" if cell.verdict else "1"
        told = Text(cell.verdict, style=VERDICT_STYLES.get(cell.verdict, "dim"))
        table.add_row(cell.model, cell.runtime, str(cell.batch), milliseconds(cell.median_ms), spread, ratio, told)
    missed = [
        Text(f"Not measured: {skip.model}, {skip.runtime}, batch {skip.batch}: {skip.reason}", style="yellow")
        for skip in bench.skipped
    ]
    paired = [
        Text(f"{cell.model} against {bench.pairs[0].model}, {cell.runtime}, batch {cell.batch}: {_pair(cell)}")
        for cell in bench.pairs
        if cell.verdict
    ]
    return Group(table, *paired, *missed, *map(Text, bench.notes))


def _pair(cell: Latency) -> str:
    return f"{cell.ratio:.2f} ({cell.ratio_low:.2f}-{cell.ratio_high:.2f}), {cell.verdict}"


def search_table(found: Sequence[Found], title: str) -> RenderableType:
    """Blocks with their costs, as shares of what they replace, and latency where it was measured."""
    timed = any(each.latency is not None for each in found)
    table = grid(title, "block", ">MACs", ">params", ">cost", *([">latency"] if timed else []))
    for each in found:
        late = [milliseconds(1000 * each.latency)] if each.latency is not None else []
        table.add_row(each.label, count(each.macs), count(each.params), f"{each.cost:.3f}", *late)
    return table


def before_after(records: RunRecords) -> RenderableType:
    """A run in one table: what the optimized net costs and attains beside the baseline."""
    table = grid(f"{records.settings.get('model', 'model')}: before and after", "", ">baseline", ">optimized", ">")
    for row in before_after_rows(records):
        table.add_row(*row)
    return table


def before_after_rows(records: RunRecords) -> list[tuple[str, str, str, str]]:
    """Names, both values, and what the second is to the first, as far as the run has come."""
    base, new = records.nets
    rows: list[tuple[str, str, str, str]] = []
    if base.scores and new.scores:
        a, b = base.scores, new.scores
        layers = [sum(max(layer.kernel or (1,)) > 1 for layer in scores.layers) for scores in (a, b)]
        rows += [
            ("parameters", count(a.params), count(b.params), change(a.params, b.params)),
            ("MACs", count(a.macs), count(b.macs), change(a.macs, b.macs)),
            ("spatial convs", str(layers[0]), str(layers[1]), f"{layers[1] - layers[0]:+d}"),
        ]
    if plans := [plan for plan in (records.organize, records.decompose) if plan]:
        # Plans count the same convolutions on both sides; scores take the first one of a depthwise net for a stem.
        start, end = plans[0].base, plans[-1].new
        rows += [
            *_unit_rows(start.blocks, end.blocks),
            ("3DRF gain", f"{start.gain:.2f}", f"{end.gain:.2f}", f"{end.gain - start.gain:+.2f}"),
        ]
    rows += _accuracy_rows(base, new)
    written = {file.path.name: file for file in new.exports}
    for before, after in ((file, written[file.path.name]) for file in base.exports if file.path.name in written):
        kind = before.format if before.output_error is None else "int8 onnx"
        sizes = f"{before.bytes / 1e6:.2f} MB", f"{after.bytes / 1e6:.2f} MB"
        rows.append((f"{kind} file", *sizes, change(before.bytes, after.bytes)))
    return rows + _latency_rows(records)


def _accuracy_rows(base: NetRecords, new: NetRecords) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = []
    for evaluated in new.evaluations[:-1]:
        rows.append((f"top-1 {evaluated.label}", "", percent(evaluated.top1), ""))
    if base.final or new.final:
        cells = [percent(net.final.top1) if net.final else "" for net in (base, new)]
        points = f"{100 * (new.final.top1 - base.final.top1):+.2f} pt" if base.final and new.final else ""
        rows.append((f"top-1 {new.final.when}" if new.final else "top-1", cells[0], cells[1], points))
    return rows


ACCURACY_COLUMNS = ("step", ">top-1", ">change", ">top-5", ">loss")


def accuracy_table(net: NetRecords) -> RenderableType:
    """How accurate a net is after each of its steps, a training as one."""
    table = grid("Accuracy after each step", *ACCURACY_COLUMNS)
    for _, *row in accuracy_rows([net]):
        table.add_row(*row)
    return table


def accuracy_rows(nets: Sequence[NetRecords]) -> list[tuple[str, ...]]:
    """Net, step, top-1, what that is more than in the first row, top-5 and loss."""
    told = [(net, each) for net in nets for each in net.evaluations]
    changes = [f"{100 * (each.top1 - told[0][1].top1):+.2f} pt" for _, each in told[1:]]
    return [
        (net.name, net.label(each), percent(each.top1), points, percent(each.top5), f"{each.loss:.4f}")
        for (net, each), points in zip(told, ["", *changes], strict=False)
    ]


def _latency_rows(records: RunRecords) -> list[tuple[str, str, str, str]]:
    """Float files, then int8 files, each net's beside the other's."""
    if records.bench is None:
        return []
    names = records.baseline.name, records.optimized.name
    float_rows = _paired(records.bench, records.bench.cells, names, "")
    return float_rows + _paired(records.bench, records.bench.pairs, (f"{names[0]} int8", f"{names[1]} int8"), " int8")


def _paired(
    bench: Bench, compared: Sequence[Latency], names: tuple[str, str], kind: str
) -> list[tuple[str, str, str, str]]:
    times = {(cell.runtime, cell.batch, cell.model): cell.median_ms for cell in bench.cells}
    rows = []
    for cell in compared:
        before = times.get((cell.runtime, cell.batch, names[0]))
        if before and cell.model == names[1]:
            told = f"{cell.ratio:.2f}x, {cell.verdict}"
            pair = milliseconds(before), milliseconds(cell.median_ms)
            rows.append((f"{cell.runtime}{kind}, batch {cell.batch}", *pair, told))
    return rows


def grid(title: str, *columns: str) -> Grid:
    """A borderless table; a leading `>` aligns a column right, layers, edits and reasons wrap."""
    return Grid(title, columns, frozenset({"layer", "edit", "why"}))


def names_table(columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> RenderableType:
    """What there is by name."""
    table = Grid("", tuple(columns), frozenset(columns[-1:]))
    for row in rows:
        table.add_row(*row)
    return table


def _names(names: Sequence[str]) -> str:
    """Up to three names, then how many more."""
    shown = ", ".join(name.partition(" + ")[0] for name in names[:NAMES])
    return shown if len(names) <= NAMES else f"{shown} and {len(names) - NAMES} more"


def _list(values: tuple[int, ...]) -> str:
    return ",".join(map(str, values))


def _signed(value: int) -> str:
    return f"{'+' if value >= 0 else '-'}{count(abs(value))}"
