"""What a net's layers see, gain and cost, as tables for the terminal: one net, and two side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.console import Group, RenderableType
from rich.text import Text

from convsmith.report.folding import Row, fold
from convsmith.report.grids import Grid
from convsmith.report.numbers import change, count, share, side
from convsmith.report.tables import grid
from convsmith.score.advice import Advice, Finding
from convsmith.score.records import Layer, Scores, Stage
from convsmith.text import times

Analyzed = tuple[Scores, Advice]

SHOWN = 3  # idle layers that the terminal tells of; the table marks all

Milliseconds = Sequence[float | None]  # of each layer, and of the net

COLUMNS = ("layer", "kernel", ">channels", ">map", ">params", ">MACs")
SHARE, TIME = ">share", ">ms"
SEEN = (">window", ">gain")
EXPLAINED = "kernel/stride, channels in->out, map side out, window of input seen, gain"
FOLDED = "x3: three alike layers, costs and gains summed; dw depthwise, g4 four groups"
VALUE = "value: the sum of gain^(1/4) over layers, to compare nets by"
TIMED = "ms: of layers that are modules, one image; the total is the whole net's"
IDLE = "*: idle, little or nothing new for its cost (in a row of alike layers, some)"


def scores_table(
    scores: Scores, advice: Advice | None = None, *, share: bool = False, milliseconds: Milliseconds | None = None
) -> RenderableType:
    """What `analyze` shows: layers by stage with their costs, window and gain, sums, what columns say, and advice.

    share: with a column of shares of the MACs. milliseconds: of each layer, and of the net at the end, for a column.
    """
    advice = advice or Advice()
    least = "at least " if scores.lower_bound else ""
    costs = f"{least}{count(scores.params)} parameters, {least}{count(scores.macs)} MACs"
    title = f"{scores.model} on {times(scores.input)}: {costs}"
    columns = (*COLUMNS, *([SHARE] if share else []), *([TIME] if milliseconds is not None else []), *SEEN)
    table = Grid(title, columns)
    cells = _Cells(scores, advice, share, milliseconds)
    sums = {stage.name: stage for stage in scores.stages}
    for name, rows in fold(scores.layers):
        for row in rows:
            style = "yellow" if advice.idle.intersection(row.places) else ""
            table.add_row(*cells.layer(row), style=style)
        if name in sums:
            places = [place for row in rows for place in row.places]
            table.add_row(*cells.stage(sums[name], places), style="bold")
        table.add_section()
    table.add_row("value", *[""] * (len(columns) - 2), f"{scores.value:.3f} ", style="bold")
    table.add_row(*cells.total(), style="bold")
    return Group(table, *_unknown(scores), *_legend(scores, advice, milliseconds is not None), *_advice(advice))


@dataclass(frozen=True)
class _Cells:
    """The cells of the rows of one net's table."""

    scores: Scores
    advice: Advice
    share: bool
    milliseconds: Milliseconds | None

    def layer(self, row: Row) -> list[str]:
        """Of alike layers."""
        first = row.first
        repeats = f" x{len(row.layers)}" if len(row.layers) > 1 else ""
        window = side(first.reach.window) if first.reach else "unknown"
        mark = "*" if self.advice.idle.intersection(row.places) else " "
        gain = f"{row.gain:.3f}{mark}" if row.gain else mark
        ins, outs, size = sizes(first)
        shape = [(first.name or self.scores.model) + repeats, kernel(first), f"{ins}->{outs}", side(size)]
        return [*shape, *self._costs(row.params, row.macs, row.places), window, gain]

    def stage(self, stage: Stage, places: Sequence[int]) -> list[str]:
        """Of a stage, whose layers stand in these places."""
        head = [f"{stage.name}: {stage.layers} counted", "", "", str(stage.width)]
        return [*head, *self._costs(stage.params, stage.macs, places), "", f"{stage.gain:.3f} "]

    def total(self) -> list[str]:
        """Of the net."""
        scores = self.scores
        costs = self._costs(scores.params, scores.macs, [-1])
        return ["total", "", "", "", *costs, "", f"{scores.gain:.3f} "]

    def _costs(self, params: int, macs: int, places: Sequence[int]) -> list[str]:
        found = [count(params), count(macs)]
        if self.share:
            found.append(share(macs, self.scores.macs).replace(" ", ""))
        if self.milliseconds is not None:
            known = [time for place in places if (time := self.milliseconds[place]) is not None]
            found.append(f"{sum(known):.3g}" if known else "")
        return found


def sizes(layer: Layer) -> tuple[int, int, tuple[int, ...]]:
    """Channels in and out, and the map that comes out: of a linear layer the last axis holds its features.

    A single number, as a product that sums over all axes makes, is one channel.
    """
    ins, outs = layer.in_shape or (1,), layer.out_shape or (1,)
    return (ins[-1], outs[-1], outs[:-1]) if layer.kind == "linear" else (ins[0], outs[0], outs[1:])


def _legend(scores: Scores, advice: Advice, timed: bool) -> list[Text]:
    rows = [row for _, rows in fold(scores.layers) for row in rows]
    marked = any(len(row.layers) > 1 or (row.first.groups or 1) > 1 for row in rows)
    lines = [EXPLAINED, VALUE, *([FOLDED] if marked else []), *([TIMED] if timed else [])]
    lines += [IDLE] if advice.idle else []
    return [Text(line, style="dim") for line in lines]


def _advice(advice: Advice) -> list[RenderableType]:
    """The idle layers that cost most, how many more there are, and all other findings."""
    idle, others = by_cost(advice)
    told: list[tuple[str, str]] = [(finding.kind, finding.advice) for finding in idle[:SHOWN]]
    told += [("", f"{more_idle(len(idle) - SHOWN)}, marked in the table.")] if len(idle) > SHOWN else []
    told += [(finding.kind, finding.advice) for finding in others]
    lines = Grid("Advice", ("", "why"), frozenset({"why"}), heads=False)
    for cells in told:
        lines.add_row(*cells)
    return [lines] if told else []


def more_idle(number: int) -> str:
    """How many are not told of.

    >>> more_idle(1), more_idle(3)
    ('1 more idle layer', '3 more idle layers')
    """
    return f"{number} more idle layer{'' if number == 1 else 's'}"


def by_cost(advice: Advice) -> tuple[list[Finding], list[Finding]]:
    """The idle layers, the dearest first, and the other findings."""
    idle = [finding for finding in advice.findings if finding.kind == "idle"]
    others = [finding for finding in advice.findings if finding.kind != "idle"]
    return sorted(idle, key=lambda finding: -finding.share), others


def _unknown(scores: Scores) -> list[Text]:
    notes = [Text(note, style="yellow") for note in scores.notes]
    if not scores.unknown_ops:
        return notes
    told = ", ".join(f"{op} ({calls})" for op, calls in scores.unknown_ops.items())
    return [
        *notes,
        Text(
            f"No rule for {told}: its cost is not in the totals, and layers behind it are neither scored nor replaced.",
            style="yellow",
        ),
    ]


STAGE_COLUMNS = ("stage", ">map", ">layers", ">params", ">", ">MACs", ">", ">gain", ">value")


def stage_rows(scores: Scores) -> list[tuple[str, ...]]:
    """Cells below STAGE_COLUMNS: by stage, what lies outside of stages (stem and head), and the total."""
    stages = scores.stages
    own = [
        (s.name, f"{s.width} px", str(s.layers), s.params, s.macs, f"{s.gain:.3f}", f"{s.value:.3f}") for s in stages
    ]
    rest = scores.params - sum(s.params for s in stages), scores.macs - sum(s.macs for s in stages)
    layers = str(sum(s.layers for s in stages))
    own += [("stem and head", "", "", *rest, "", "")] if any(rest) else []
    own += [("total", "", layers, scores.params, scores.macs, f"{scores.gain:.3f}", f"{scores.value:.3f}")]
    return [
        (name, side, convs, count(params), share(params, scores.params), count(macs), share(macs, scores.macs), *sums)
        for name, side, convs, params, macs, *sums in own
    ]


def compare_table(nets: Sequence[Analyzed]) -> RenderableType:
    """Two nets in one table: totals and stages, and what the second is to the first."""
    names = names_of(nets)
    table = grid(f"{names[0]} and {names[1]}", "", *(f">{name}" for name in names), ">")
    totals, stages = compare_rows(nets)
    for row in totals:
        table.add_row(*row)
    table.add_section()
    for row in stages:
        table.add_row(*row)
    note = "stages: counted convolutions on the map that enters, and their summed gain"
    return Group(table, Text(note, style="dim"))


def names_of(nets: Sequence[Analyzed]) -> list[str]:
    """What to call two nets, also where they have one name."""
    one, other = (scores.model for scores, _ in nets)
    return [one, other] if one != other else [f"{one} (first)", f"{other} (second)"]


def compare_rows(nets: Sequence[Analyzed]) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Names, both values and the change: first of the whole nets, then of their stages in order."""
    (a, _), (b, _) = nets
    spatial = [sum(stage.layers for stage in scores.stages) for scores, _ in nets]
    idle = [len(advice.idle) for _, advice in nets]
    totals = [
        ("input", times(a.input), times(b.input), ""),
        ("parameters", count(a.params), count(b.params), change(a.params, b.params)),
        ("MACs", count(a.macs), count(b.macs), change(a.macs, b.macs)),
        ("gain", f"{a.gain:.3f}", f"{b.gain:.3f}", f"{b.gain - a.gain:+.3f}"),
        ("value", f"{a.value:.3f}", f"{b.value:.3f}", f"{b.value - a.value:+.3f}"),
        ("counted layers", *map(str, spatial), f"{spatial[1] - spatial[0]:+d}"),
        ("idle layers", *map(str, idle), f"{idle[1] - idle[0]:+d}"),
        ("widest window", *(times(widest(scores)) for scores, _ in nets), ""),
    ]
    stages = []
    for pair in zip_longest(a.stages, b.stages):
        gains = [stage.gain if stage else 0.0 for stage in pair]
        told = [f"{s.layers} on {s.width} px: {s.gain:.3f}" if s else "" for s in pair]
        name = next(stage.name for stage in pair if stage)
        stages.append((name, *told, f"{gains[1] - gains[0]:+.3f}"))
    return totals, stages


def widest(scores: Scores) -> tuple[int, ...]:
    """The widest window of a spatial convolution, not clamped by the input."""
    spatial = [layer.reach.window_free for layer in scores.layers if layer.reach and max(layer.kernel or (1,)) > 1]
    return tuple(map(max, zip(*spatial, strict=True)))


def kernel(layer: Layer) -> str:
    """The kernel with its stride, and what kind of groups it has; other layers by their kind."""
    if layer.kernel is None:
        return layer.kind
    stride = f"/{max(layer.stride or (1,))}" if max(layer.stride or (1,)) > 1 else ""
    depthwise = (layer.groups or 1) > 1 and layer.groups == layer.in_shape[0]
    groups = " dw" if depthwise else f" g{layer.groups}" if (layer.groups or 1) > 1 else ""
    return f"{times(layer.kernel)}{stride}{groups}"
