"""The pages of one net, and of two side by side: what every layer sees, gains and costs."""

from collections.abc import Sequence
from html import escape

from convsmith.report import net_charts as charts
from convsmith.report.html import Tile, findings, layer_table, page, pair, plot, section, table, tiles
from convsmith.report.net_tables import STAGE_COLUMNS, Analyzed, compare_rows, names_of, stage_rows
from convsmith.report.numbers import change, count, share
from convsmith.score.advice import Advice
from convsmith.score.records import Scores
from convsmith.text import times

ADVICE_NOTE = "What the numbers mean: an idle layer sees little or nothing that is new for its share of the cost."
STAGES_NOTE = (
    "Spatial convolutions between one down-sampling and the next; map is the side that enters, percentages are shares."
)
WINDOW_NOTE = (
    "On top, the window of the input that an element of each layer depends on, exact; the dotted line is the input's "
    "side, where it can grow no more, and the thin line is the window as if there were no border. In the middle, the "
    "window inside of the stage, which 3DRF and gain are made of: past the dotted line, the stage's map, there is "
    "nothing left to see. Below, the input channels, on average. Drag to zoom, double-click to see all."
)
COST_NOTE = "A layer is worth its cost where its gain is high and its share of the MACs and parameters low."
LAYERS_NOTE = "Click a header to sort; type words to filter."


def scores_page(scores: Scores, advice: Advice | None = None) -> str:
    """The scores of one net as one page: what every layer sees, gains and costs."""
    advice = advice or Advice()
    figures = {"windows": charts.windows(scores, advice), "cost": charts.gain_and_cost(scores, advice)}
    body = [
        f"<h1>{escape(scores.model)}</h1>",
        f'<p class="lead">What each layer sees on an input of {times(scores.input)}. {escape(_unknown(scores))}</p>',
        tiles(_tiles(scores, advice)),
        *([section("Advice", ADVICE_NOTE, findings(advice))] if advice.findings else []),
        section("Growth", WINDOW_NOTE, plot("windows")),
        section("Gain against cost", COST_NOTE, plot("cost")),
        *([section("Stages", STAGES_NOTE, table(STAGE_COLUMNS, stage_rows(scores)))] if scores.stages else []),
        section("Layers", LAYERS_NOTE, layer_table(scores, advice)),
    ]
    return page(f"convsmith: {scores.model}", body, figures)


def compare_page(nets: Sequence[Analyzed]) -> str:
    """Two nets side by side, charts on one scale."""
    names = names_of(nets)
    windows, costs = [charts.windows(*net) for net in nets], [charts.gain_and_cost(*net) for net in nets]
    charts.same_axes(windows)
    charts.same_axes(costs)
    figures = {f"windows-{i}": figure for i, figure in enumerate(windows)}
    figures |= {f"cost-{i}": figure for i, figure in enumerate(costs)}
    totals, stages = compare_rows(nets)
    columns = ("", *(f">{name}" for name in names), ">change")
    body = [
        f"<h1>{escape(names[0])} and {escape(names[1])}</h1>",
        '<p class="lead">What each layer of the two nets sees, gains and costs.</p>',
        tiles(_compared(nets[0][0], nets[1][0])),
        section("Totals", "", table(columns, totals)),
        section("Stages", "Counted convolutions on the map that enters, and their gain.", table(columns, stages)),
        section("Growth", WINDOW_NOTE, pair(*(plot(f"windows-{i}", name) for i, name in enumerate(names)))),
        section("Gain against cost", COST_NOTE, pair(*(plot(f"cost-{i}", name) for i, name in enumerate(names)))),
        section("Advice", ADVICE_NOTE, pair(*map(_advised, names, [advice for _, advice in nets]))),
    ]
    for name, (scores, advice) in zip(names, nets, strict=True):
        note = f"{LAYERS_NOTE} {_unknown(scores)}"
        body.append(section(f"Layers of {name}", note, layer_table(scores, advice)))
    return page(f"convsmith: {names[0]} and {names[1]}", body, figures)


def _tiles(scores: Scores, advice: Advice) -> list[Tile]:
    stages = len(scores.stages)
    counted = sum(stage.layers for stage in scores.stages)
    cost = share(sum(finding.share for finding in advice.findings), 1)
    least = "at least " if scores.lower_bound else ""
    return [
        Tile(least + count(scores.params), "parameters"),
        Tile(least + count(scores.macs), "MACs", "multiply-accumulates, batch 1"),
        Tile(f"{scores.gain:.2f}", "3DRF gain", f"{scores.convention} convention"),
        Tile(f"{scores.value:.2f}", "value", "sum of gain^(1/4), to compare nets"),
        Tile(str(counted), "counted layers", f"in {stages} stage{'' if stages == 1 else 's'}"),
        Tile(str(len(advice.idle)), "idle layers", f"with {cost} of the MACs" if advice.idle else ""),
    ]


def _compared(one: Scores, other: Scores) -> list[Tile]:
    """What the second net is to the first."""
    pairs = {"parameters": (one.params, other.params), "MACs": (one.macs, other.macs)}
    values = [Tile(change(a, b), name, f"{count(a)} to {count(b)}") for name, (a, b) in pairs.items()]
    gain = Tile(f"{other.gain - one.gain:+.2f}", "3DRF gain", f"{one.gain:.2f} to {other.gain:.2f}")
    value = Tile(f"{other.value - one.value:+.2f}", "value", f"{one.value:.2f} to {other.value:.2f}")
    return [*values, gain, value]


def _advised(name: str, advice: Advice) -> str:
    return f"<div><h3>{escape(name)}</h3>{findings(advice) if advice.findings else '<p>Nothing.</p>'}</div>"


def _unknown(scores: Scores) -> str:
    ops = ", ".join(f"{op} ({calls})" for op, calls in scores.unknown_ops.items())
    lost = f"No rule for {ops}: its cost is not in the totals, and layers behind it are neither scored nor replaced."
    return " ".join([*scores.notes, *([lost] if ops else [])])
