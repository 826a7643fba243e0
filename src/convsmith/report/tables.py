"""Tables for the terminal, 80 columns wide."""

from collections.abc import Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from convsmith.bench import FASTER, SLOWER, Bench
from convsmith.metric import Layer, Scores
from convsmith.organize import Choice
from convsmith.plan import Edit, Plan, Refusal, Remove, Repeat, Replace, Totals
from convsmith.report.folding import Row, fold
from convsmith.report.numbers import change, count, milliseconds, percent, share, side, times
from convsmith.report.records import NetRecords, RunRecords

WIDTH = 80
GAP = 2  # between columns
NAME_WIDTH = 24
VERDICT_STYLES = {FASTER: "green", SLOWER: "red"}

EXPLAINED = (
    "channels: into and out of the layer. kernel: /2 is its stride, dw is depthwise, g4 is 4 groups. map: the output's "
    "side in pixels. window: the side of the input that an output depends on. gain: growth of the 3D receptive field "
    "in the stage, faded as it fills the map. x n: n alike layers in one row, their costs and gains summed, the last "
    "one's window. Sums of stages hold the parameters of normalization, too."
)


def scores_table(scores: Scores) -> RenderableType:
    """What `analyze` shows: layers by stage with their costs, window and gain, sums, and what the columns say."""
    title = f"{scores.model} on {times(scores.input)}: {count(scores.params)} parameters, {count(scores.macs)} MACs"
    columns = ("layer", "kernel", ">channels", ">map", ">params", ">MACs", ">window", ">gain")
    table = _table(title, *columns)
    sums = {stage.name: stage for stage in scores.stages}
    folded = [(stage, rows, [_layer_cells(row) for row in rows]) for stage, rows in fold(scores.layers)]
    room = _room(columns, [cells for _, _, told in folded for cells in told])
    for stage, rows, told in folded:
        for row, cells in zip(rows, told, strict=True):
            table.add_row(_folded_name(row, scores.model, room), *cells)
        if stage in sums:
            own = sums[stage]
            label = f"{stage}: {own.layers} on {own.width} px"
            table.add_row(label, *_sums(own.params, own.macs, own.gain), style="bold")
        table.add_section()
    table.add_row("total", *_sums(scores.params, scores.macs, scores.gain), style="bold")
    return Group(table, *_unknown(scores), Text(EXPLAINED, style="dim"))


def stages_table(scores: Scores) -> RenderableType:
    """The stages of a net: map, counted layers, costs with their shares, and gain."""
    table = _table(f"Stages of {scores.model} on {times(scores.input)}", *STAGE_COLUMNS)
    for row in stage_rows(scores):
        table.add_row(*row)
    return table


STAGE_COLUMNS = ("stage", ">map", ">layers", ">params", ">", ">MACs", ">", ">gain")


def stage_rows(scores: Scores) -> list[tuple[str, ...]]:
    """Cells below STAGE_COLUMNS: by stage, what lies outside of stages (stem and head), and the total."""
    stages = scores.stages
    own = [(s.name, f"{s.width} px", str(s.layers), s.params, s.macs, f"{s.gain:.3f}") for s in stages]
    rest = scores.params - sum(s.params for s in stages), scores.macs - sum(s.macs for s in stages)
    layers = str(sum(s.layers for s in stages))
    own += [("stem and head", "", "", *rest, "")] if any(rest) else []
    own += [("total", "", layers, scores.params, scores.macs, f"{scores.gain:.3f}")]
    return [
        (name, side, convs, count(params), share(params, scores.params), count(macs), share(macs, scores.macs), gain)
        for name, side, convs, params, macs, gain in own
    ]


def _room(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """The width that the other columns leave to the first."""
    heads = [column.removeprefix(">") for column in columns[1:]]
    widths = [max(map(len, cells)) for cells in zip(heads, *rows, strict=True)]
    return WIDTH - sum(widths) - GAP * len(heads)


def _folded_name(row: Row, model: str, room: int) -> str:
    repeats = f" x{len(row.layers)}" if len(row.layers) > 1 else ""
    return short(row.first.name or model, max(room - len(repeats), 8)) + repeats


def _sums(params: int, macs: int, gain: float) -> tuple[str, ...]:
    return "", "", "", count(params), count(macs), "", f"{gain:.3f}"


def _layer_cells(row: Row) -> tuple[str, ...]:
    """All but the name."""
    first, last = row.first, row.layers[-1]
    window = side(last.reach.window) if last.reach else "unknown"
    gain = f"{row.gain:.3f}" if row.gain else ""
    channels = f"{first.in_shape[0]}->{first.out_shape[0]}"
    return kernel(first), channels, side(first.out_shape[1:]), count(row.params), count(row.macs), window, gain


def kernel(layer: Layer) -> str:
    """The kernel with its stride, and what kind of groups it has; other layers by their kind."""
    if layer.kernel is None:
        return layer.kind
    stride = f"/{max(layer.stride or (1,))}" if max(layer.stride or (1,)) > 1 else ""
    depthwise = (layer.groups or 1) > 1 and layer.groups == layer.in_shape[0]
    groups = " dw" if depthwise else f" g{layer.groups}" if (layer.groups or 1) > 1 else ""
    return f"{times(layer.kernel)}{stride}{groups}"


def _unknown(scores: Scores) -> list[Text]:
    if not scores.unknown_ops:
        return []
    told = ", ".join(f"{op} ({calls})" for op, calls in scores.unknown_ops.items())
    return [Text(f"No rule for {told}: what is behind is not known, and not edited.", style="yellow")]


def plan_table(plan: Plan) -> RenderableType:
    """A plan: totals before and after, edits and refusals with their reasons; alike ones stand together."""
    totals = _table(f"Plan for {plan.model} on {times(plan.input)}", "", ">base", ">new", ">")
    for row in total_rows(plan.base, plan.new):
        totals.add_row(*row)
    edits = _table("", "layer", "edit", "why")
    for layers, what, why in edit_rows(plan):
        edits.add_row(layers, what, why)
    refused = _table("Left alone", "layer", "why")
    for names, why in refusal_rows(plan.refusals):
        refused.add_row(names, why)
    parts = [totals, *([edits] if plan.edits else [Text("No edits.")]), *([refused] if plan.refusals else [])]
    return Group(*parts)


def total_rows(base: Totals, new: Totals) -> list[tuple[str, str, str, str]]:
    """What a plan changes: names, both values, and what the second is to the first."""
    return [
        ("units per stage", _list(base.blocks), _list(new.blocks), ""),
        ("gain", f"{base.gain:.3f}", f"{new.gain:.3f}", f"{new.gain - base.gain:+.3f}"),
        ("parameters", count(base.params), count(new.params), change(base.params, new.params)),
        ("MACs", count(base.macs), count(new.macs), change(base.macs, new.macs)),
    ]


def edit_rows(plan: Plan) -> list[tuple[str, str, str]]:
    """Layers, what is done to them, and why; neighbours with the same edit and reason share a row."""
    rows = []
    for (what, why), group in groupby(plan.edits, key=lambda edit: (_what(edit), edit.reason)):
        edits = list(group)
        rows.append((_names([_edited(edit) for edit in edits]), what + _errors(edits), why))
    return rows


def _errors(edits: Sequence[Edit]) -> str:
    """The errors of carried weights, least to largest."""
    errors = [edit.error for edit in edits if isinstance(edit, Replace) and edit.error is not None]
    if not errors:
        return ""
    least, most = f"{min(errors):.3f}", f"{max(errors):.3f}"
    return f", error {least}" + (f" to {most}" if most != least else "")


def refusal_rows(refusals: Sequence[Refusal]) -> list[tuple[str, str]]:
    """Layers left alone by reason, in order of their first."""
    by_reason: dict[str, list[str]] = {}
    for refusal in refusals:
        by_reason.setdefault(refusal.reason, []).append(refusal.layer)
    return [(_names(layers), reason) for reason, layers in by_reason.items()]


def _edited(edit: Edit) -> str:
    return edit.layer if isinstance(edit, Replace) else edit.unit[0]


def _what(edit: Edit) -> str:
    if isinstance(edit, Repeat):
        return f"repeat x{edit.copies}"
    if isinstance(edit, Remove):
        return "remove"
    return f"{edit.block}{'' if edit.quality else ' (sees less)'}"


def pareto_table(choices: Sequence[Choice]) -> RenderableType:
    """Spreads of units that no other beats; differences are to the base."""
    table = _table("Best spreads (differences to the base)", "units per stage", ">gain", ">params", ">MACs")
    for choice in choices:
        table.add_row(_list(choice.blocks), f"{choice.gain:.3f}", _signed(choice.params), _signed(choice.macs))
    return table


def bench_table(bench: Bench) -> RenderableType:
    """Latencies with quartiles, ratios with their 95 % bounds, and what could not be measured."""
    title = f"Latency on {times(bench.input)}, {bench.threads} threads"
    table = _table(title, "runtime", ">batch", "model", ">median", ">quartiles", ">ratio", "")
    for cell in bench.cells:
        spread = f"{cell.q1_ms:.3g}-{cell.q3_ms:.3g}"
        ratio = f"{cell.ratio:.2f} ({cell.ratio_low:.2f}-{cell.ratio_high:.2f})" if cell.verdict else "1"
        told = Text(cell.verdict, style=VERDICT_STYLES.get(cell.verdict, "dim"))
        name = short(cell.model, 16)
        table.add_row(cell.runtime, str(cell.batch), name, milliseconds(cell.median_ms), spread, ratio, told)
    missed = [
        Text(f"Not measured: {skip.model}, {skip.runtime}, batch {skip.batch}: {skip.reason}", style="yellow")
        for skip in bench.skipped
    ]
    return Group(table, *missed)


def before_after(records: RunRecords) -> RenderableType:
    """A run in one table: what the optimized net costs and attains beside the baseline."""
    table = _table(f"{records.settings.get('model', 'model')}: before and after", "", ">baseline", ">optimized", ">")
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
            ("units per stage", _list(start.blocks), _list(end.blocks), ""),
            ("3DRF gain", f"{start.gain:.2f}", f"{end.gain:.2f}", f"{end.gain - start.gain:+.2f}"),
        ]
    rows += _accuracy_rows(base, new)
    for before, after in zip(base.exports, new.exports, strict=False):
        sizes = [f"{export.bytes / 1e6:.2f} MB" for export in (before, after)]
        rows.append((f"{before.format} file", sizes[0], sizes[1], change(before.bytes, after.bytes)))
    return rows + _latency_rows(records)


def _accuracy_rows(base: NetRecords, new: NetRecords) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = []
    for evaluated in new.evaluations[:-1]:
        rows.append((f"top-1 {evaluated.when}", "", percent(evaluated.top1), ""))
    if base.final or new.final:
        cells = [percent(net.final.top1) if net.final else "" for net in (base, new)]
        points = f"{100 * (new.final.top1 - base.final.top1):+.2f} pt" if base.final and new.final else ""
        rows.append((f"top-1 {new.final.when}" if new.final else "top-1", cells[0], cells[1], points))
    return rows


def _latency_rows(records: RunRecords) -> list[tuple[str, str, str, str]]:
    cells = {(c.runtime, c.batch, c.model): c for c in records.bench.cells} if records.bench else {}
    rows = []
    for (runtime, batch, model), after in cells.items():
        before = cells.get((runtime, batch, records.baseline.name))
        if before and model == records.optimized.name:
            told = f"{after.ratio:.2f}x, {after.verdict}"
            pair = milliseconds(before.median_ms), milliseconds(after.median_ms)
            rows.append((f"{runtime}, batch {batch}", *pair, told))
    return rows


def short(name: str, width: int) -> str:
    """A name cut in its middle to `width` characters.

    >>> short("features.denseblock1.denselayer1.conv2", 20)
    'feature...er1.conv2'
    """
    if len(name) <= width:
        return name
    tail = (width - 2) // 2 + 1
    return f"{name[: width - 3 - tail + 1]}..{name[-tail + 1 :]}"


def _table(title: str, *columns: str) -> Table:
    """A borderless table; a leading `>` aligns a column right."""
    table = Table(
        title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1)
    )
    for column in columns:
        right = column.startswith(">")
        words = column in ("why", "layer") or not column
        table.add_column(column.removeprefix(">"), justify="right" if right else "left", no_wrap=not words)
    return table


def _names(names: Sequence[str]) -> str:
    """Up to three names, then how many more."""
    shown = ", ".join(short(name.partition(" + ")[0], NAME_WIDTH) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _list(values: tuple[int, ...]) -> str:
    return ",".join(map(str, values))


def _signed(value: int) -> str:
    return f"{'+' if value >= 0 else '-'}{count(abs(value))}"
