"""Charts of what the layers of a net see, gain and cost, one net or two on one scale."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import log10, prod
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from convsmith.report.charts import BASE_COLOR, COLORS, NEW_COLOR, Figure, plain, plain_text
from convsmith.report.numbers import count
from convsmith.score.advice import Advice
from convsmith.score.records import Layer, Scores
from convsmith.structure.stages import HEAD, STEM
from convsmith.text import times

IDLE_COLOR = "#e0452f"
_IDLE = {
    "mode": "markers", "marker": {"color": IDLE_COLOR, "size": 10, "symbol": "circle-open", "line": {"width": 2}},
    "hoverinfo": "skip",
}  # fmt: skip


def growth(scores: Scores) -> Figure:
    """3DRF behind every layer, stage by stage, and the stage's full map as a dotted ceiling."""
    figure = go.Figure()
    for stage, layers in _by_stage(scores).items():
        color, places = _color(scores, stage), [place for place, _ in layers]
        names = [_hover(layer) for _, layer in layers]
        figure.add_scatter(
            x=places, y=[layer.rf3d for _, layer in layers], text=names, name=stage, mode="lines+markers",
            line={"color": color, "shape": "hv"}, hovertemplate="%{text}<br>3DRF %{y:,.0f}<extra></extra>",
        )  # fmt: skip
        ceiling = _ceiling(scores, [layer for _, layer in layers])
        if ceiling:
            figure.add_scatter(
                x=[places[0] - 0.4, places[-1] + 0.4], y=[ceiling, ceiling], mode="lines", showlegend=False,
                line={"color": color, "dash": "dot", "width": 1.5}, hoverinfo="skip",
            )  # fmt: skip
    figure.update_yaxes(type="log", title="3DRF (log)", exponentformat="power", dtick=1)
    figure.update_xaxes(range=_all(scores))
    return plain(figure, "layer")


def same_scale(figures: Sequence[Figure]) -> None:
    """Give growth charts that stand side by side one range of values."""
    values = [value for figure in figures for trace in figure["data"] for value in trace["y"]]
    if values:
        low, high = log10(min(values)) - 0.15, log10(max(values)) + 0.15
        for figure in figures:
            figure["layout"]["yaxis"]["range"] = [low, high]


def same_axes(figures: Sequence[Figure]) -> None:
    """Give charts of nets that stand side by side one range of values on each of their vertical axes."""
    for axis in [name for name in figures[0]["layout"] if name.startswith("yaxis")]:
        top = max(figure["layout"][axis].get("range", (0, _top(figure, axis)))[1] for figure in figures)
        for figure in figures:
            figure["layout"][axis]["range"] = [0, top]


def _top(figure: Figure, axis: str) -> float:
    traces = [trace for trace in figure["data"] if trace.get("yaxis", "y") == axis.replace("axis", "")]
    return 1.06 * max((value for trace in traces for value in trace["y"] if value is not None), default=1.0)


def windows(scores: Scores, advice: Advice) -> Figure:
    """What every layer sees: of the input and of its stage's map, each with its ceiling, and how many channels."""
    figure = make_subplots(rows=3, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.48, 0.34, 0.18])
    _input_windows(figure, scores, advice)
    _stage_windows(figure, scores)
    seen = [(place, layer, layer.reach.channels) for place, layer in enumerate(scores.layers, 1) if layer.reach]
    figure.add_scatter(
        x=[place for place, _, _ in seen], y=[channels for _, _, channels in seen], mode="lines+markers",
        text=[_hover(layer) for _, layer, _ in seen], line={"color": COLORS[4]}, marker={"size": 4},
        name="channels", hovertemplate="%{text}<br>%{y:.4g} input channels<extra></extra>", row=3, col=1,
    )  # fmt: skip
    _shade(figure, scores)
    figure.update_yaxes(title="channels", rangemode="tozero", row=3, col=1)
    figure.update_xaxes(title="layer (shaded: stages)", row=3, col=1)
    figure.update_xaxes(range=_all(scores))
    drawn = plain(figure)
    drawn["layout"]["height"] = 560
    return drawn


def _input_windows(figure: Any, scores: Scores, advice: Advice) -> None:
    """The window of the input behind each layer, as it is and as if there were no border; the input's side on top."""
    seen = [(p, layer, layer.reach) for p, layer in enumerate(scores.layers, 1) if layer.reach and not _in_gate(layer)]
    places, limit = [place for place, _, _ in seen], max(scores.input[1:], default=1)
    top = 1.22 * limit  # room for the stages' names above the ceiling
    sides = [max(reach.window, default=0) for _, _, reach in seen]
    free = [min(max(reach.window_free, default=0), 2 * top) for _, _, reach in seen]  # no farther than off the chart
    marked = [(place, side) for place, side in zip(places, sides, strict=True) if place - 1 in advice.idle]
    figure.add_scatter(
        x=places, y=free, mode="lines", name="no border", line={"color": BASE_COLOR, "width": 1.2},
        hoverinfo="skip", row=1, col=1,
    )  # fmt: skip
    figure.add_scatter(
        x=places, y=sides, text=[_hover(layer) for _, layer, _ in seen], mode="lines+markers", name="of input",
        line={"color": NEW_COLOR}, hovertemplate="%{text}<extra></extra>", row=1, col=1,
    )  # fmt: skip
    if marked:
        figure.add_scatter(
            x=[place for place, _ in marked], y=[side for _, side in marked], name="idle", **_IDLE, row=1, col=1
        )
    figure.add_hline(
        y=limit, line={"dash": "dot", "width": 1.5, "color": BASE_COLOR}, row=1, col=1,
        annotation_text=f"input {limit}", annotation_position="bottom right", annotation_font_size=11,
    )  # fmt: skip
    figure.update_yaxes(title="of input (px)", range=[0, top], row=1, col=1)


def _in_gate(layer: Layer) -> bool:
    """A pointwise layer on a pooled map inside of a stage, as a gate has: it sees all, and only scales."""
    pooled = len(layer.in_shape) > 1 and prod(layer.in_shape[1:]) == 1
    return pooled and max(layer.kernel or (1,)) == 1 and layer.stage not in (STEM, HEAD)


def _stage_windows(figure: Any, scores: Scores) -> None:
    """The window of the stage's map behind each layer; the map's own side on top."""
    widths = {stage.name: stage.width for stage in scores.stages}
    places: list[float | None] = []
    sides: list[float | None] = []
    hover: list[str] = []
    tops: list[tuple[float | None, float | None]] = []
    for stage, first, last in _stretches(scores):
        inside = [(place, scores.layers[place - 1]) for place in range(first, last + 1)]
        for place, layer in inside:
            side = max(layer.side or (0,))
            places.append(place)
            sides.append(side or None)
            hover.append(f"{plain_text(layer.name)}: {side} of the {widths[stage]} px that enter {stage}")
        places, sides, hover = [*places, None], [*sides, None], [*hover, ""]  # a gap
        tops += [(first - 0.4, widths[stage]), (last + 0.4, widths[stage]), (None, None)]
    figure.add_scatter(
        x=places, y=sides, text=hover, mode="lines+markers", name="of stage", marker={"size": 4},
        line={"color": COLORS[2]}, hovertemplate="%{text}<extra></extra>", row=2, col=1,
    )  # fmt: skip
    figure.add_scatter(
        x=[x for x, _ in tops], y=[y for _, y in tops], mode="lines", name="map", hoverinfo="skip",
        line={"color": BASE_COLOR, "dash": "dot", "width": 1.5}, row=2, col=1,
    )  # fmt: skip
    figure.update_yaxes(title="of stage (px)", rangemode="tozero", row=2, col=1)


def _shade(figure: Any, scores: Scores) -> None:
    for stage, first, last in _stretches(scores):
        for row in (1, 2):
            name = {"annotation_text": stage.removeprefix("stage"), "annotation_position": "top left"}
            figure.add_vrect(
                x0=first - 0.5, x1=last + 0.5, fillcolor=_color(scores, stage), opacity=0.14, line_width=0,
                layer="below", row=row, col=1, **(name if row == 1 else {}),
            )  # fmt: skip


def gain_and_cost(scores: Scores, advice: Advice | None = None) -> Figure:
    """Gain of every layer above its share of the MACs and parameters, idle layers in a color of their own."""
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.09)
    layers, places = scores.layers, list(range(1, len(scores.layers) + 1))
    idle = advice.idle if advice else frozenset()
    hover = [_hover(layer) + (", idle" if place in idle else "") for place, layer in enumerate(layers)]
    for row, name, values, color in (
        (1, "gain", [layer.gain for layer in layers], NEW_COLOR),
        (2, "MACs", [100 * layer.macs / max(scores.macs, 1) for layer in layers], COLORS[1]),
        (2, "parameters", [100 * layer.params / max(scores.params, 1) for layer in layers], BASE_COLOR),
    ):
        figure.add_bar(
            x=places, y=values, text=hover, textposition="none", name=name, marker={"color": color},
            hovertemplate="%{text}<br>" + name + " %{y:.3g}<extra></extra>", row=row, col=1,
        )  # fmt: skip
    if idle:
        figure.add_scatter(
            x=[place + 1 for place in sorted(idle)], y=[layers[place].gain for place in sorted(idle)], name="idle",
            **_IDLE, row=1, col=1,
        )  # fmt: skip
    figure.update_yaxes(title="gain", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="share (%)", row=2, col=1)
    figure.update_xaxes(title="layer", row=2, col=1)
    figure.update_xaxes(range=_all(scores))
    return plain(figure)


def _by_stage(scores: Scores) -> dict[str, list[tuple[int, Layer]]]:
    """Layers with their place in the net, by stage, stem and head left out."""
    stages: dict[str, list[tuple[int, Layer]]] = {stage.name: [] for stage in scores.stages}
    for place, layer in enumerate(scores.layers, 1):
        if layer.stage in stages and layer.rf3d:
            stages[layer.stage].append((place, layer))
    return {stage: layers for stage, layers in stages.items() if layers}


def _all(scores: Scores) -> list[float]:
    return [0.4, len(scores.layers) + 0.6]


def _stretches(scores: Scores) -> Iterator[tuple[str, int, int]]:
    """Neighbouring layers of one stage: its name, first and last place."""
    inside = {stage.name for stage in scores.stages}
    for stage, group in groupby(enumerate(scores.layers, 1), key=lambda pair: pair[1].stage):
        places = [place for place, _ in group]
        if stage in inside:
            yield stage, places[0], places[-1]


def _ceiling(scores: Scores, layers: Sequence[Layer]) -> float | None:
    """The volume of the map that enters a stage, where the published convention has one channel count per stage."""
    first = next((layer for layer in layers if layer.gain), None)
    if scores.convention != "published" or first is None or first.channels is None:
        return None
    return prod(first.in_shape[1:]) * first.channels


def _hover(layer: Layer) -> str:
    window = f", sees {times(layer.reach.window)}" if layer.reach else ""
    return f"{plain_text(layer.name)}: {times(layer.out_shape)}, {count(layer.macs)} MACs{window}"


def _color(scores: Scores, stage: str) -> str:
    number = [row.name for row in scores.stages].index(stage)
    return COLORS[number % len(COLORS)]
