"""Charts of a page as plotly figures, in plain JSON values; colors that depend on light or dark are the page's."""

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from convsmith.bench import Bench
from convsmith.metric import Layer, Scores
from convsmith.report.numbers import count, times
from convsmith.report.records import NetRecords

Figure = dict[str, Any]

BASE_COLOR, NEW_COLOR = "#8a94a6", "#2f7de1"  # seen on light and on dark
STAGE_COLORS = ("#2f7de1", "#e08a1e", "#2aa876", "#c2528b", "#7a63d2", "#c9a300", "#3fa7c4", "#d2604b")
MARGIN = {"l": 56, "r": 12, "t": 28, "b": 44}


def growth(scores: Scores) -> Figure:
    """3DRF behind every layer, stage by stage, and the stage's full map as a dashed ceiling."""
    figure = go.Figure()
    for number, (stage, layers) in enumerate(_by_stage(scores)):
        color, places = _color(number), [place for place, _ in layers]
        names = [_hover(layer) for _, layer in layers]
        figure.add_scatter(
            x=places, y=[layer.rf3d for _, layer in layers], text=names, name=stage, mode="lines+markers",
            line={"color": color, "shape": "hv"}, hovertemplate="%{text}<br>3DRF %{y:,.0f}<extra></extra>",
        )  # fmt: skip
        ceiling = _ceiling(scores, stage, layers[0][1])
        if ceiling:
            figure.add_scatter(
                x=[places[0] - 0.4, places[-1] + 0.4], y=[ceiling, ceiling], mode="lines", showlegend=False,
                line={"color": color, "dash": "dot", "width": 1}, hoverinfo="skip",
            )  # fmt: skip
    figure.update_yaxes(type="log", title="3DRF (log)", exponentformat="power", dtick=1)
    return _plain(figure, "layer")


def windows(scores: Scores) -> Figure:
    """Input pixels and channels that every layer sees, stages shaded, the input's side as the ceiling."""
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.09, row_heights=[0.65, 0.35])
    seen = [(place, layer) for place, layer in enumerate(scores.layers, 1) if layer.reach]
    hover = [_hover(layer) for _, layer in seen]
    places = [place for place, _ in seen]
    for row, title, values, color in (
        (1, "window (pixels)", [max(layer.reach.window) for _, layer in seen if layer.reach], NEW_COLOR),
        (2, "input channels", [layer.reach.channels for _, layer in seen if layer.reach], STAGE_COLORS[2]),
    ):
        figure.add_scatter(
            x=places, y=values, text=hover, mode="lines+markers", line={"color": color}, showlegend=False,
            hovertemplate="%{text}<br>%{y}<extra></extra>", row=row, col=1,
        )  # fmt: skip
        figure.update_yaxes(title=title, rangemode="tozero", row=row, col=1)
    figure.add_hline(y=max(scores.input[1:]), line={"dash": "dot", "width": 1, "color": BASE_COLOR}, row=1, col=1)
    for number, (stage, layers) in enumerate(_by_stage(scores)):
        figure.add_vrect(
            x0=layers[0][0] - 0.5, x1=layers[-1][0] + 0.5, fillcolor=_color(number), opacity=0.12, line_width=0,
            annotation_text=stage, annotation_position="top left", annotation_font_size=11, row=1, col=1,
        )  # fmt: skip
    figure.update_xaxes(title="layer", row=2, col=1)
    return _plain(figure)


def gain_and_cost(scores: Scores) -> Figure:
    """Gain of every layer above its share of the MACs and parameters."""
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.09)
    layers, places = scores.layers, list(range(1, len(scores.layers) + 1))
    hover = [_hover(layer) for layer in layers]
    for row, name, values, color in (
        (1, "gain", [layer.gain for layer in layers], NEW_COLOR),
        (2, "MACs", [100 * layer.macs / max(scores.macs, 1) for layer in layers], STAGE_COLORS[1]),
        (2, "parameters", [100 * layer.params / max(scores.params, 1) for layer in layers], BASE_COLOR),
    ):
        figure.add_bar(
            x=places, y=values, text=hover, textposition="none", name=name, marker={"color": color},
            hovertemplate="%{text}<br>" + name + " %{y:.3g}<extra></extra>", row=row, col=1,
        )  # fmt: skip
    figure.update_yaxes(title="gain", row=1, col=1)
    figure.update_yaxes(title="share (%)", row=2, col=1)
    figure.update_xaxes(title="layer", row=2, col=1)
    return _plain(figure)


def accuracy(nets: Sequence[NetRecords]) -> Figure:
    """Test accuracy by epoch; a net that was not trained is a dashed line at its one evaluation."""
    figure = go.Figure()
    for net, color in zip(nets, (BASE_COLOR, NEW_COLOR), strict=True):
        if net.history:
            epochs = [epoch.epoch for epoch in net.history]
            top1 = [100 * epoch.test_top1 for epoch in net.history]
            figure.add_scatter(x=epochs, y=top1, name=net.name, mode="lines+markers", line={"color": color})
        elif net.final:
            figure.add_hline(
                y=100 * net.final.top1, line={"color": color, "dash": "dash"}, annotation_text=net.name,
                annotation_position="bottom right",
            )  # fmt: skip
    figure.update_yaxes(title="test top-1 (%)")
    figure.update_xaxes(dtick=1 if max((len(net.history) for net in nets), default=0) <= 20 else None)
    return _plain(figure, "epoch")


def latency(bench: Bench) -> Figure:
    """Median time of every model over the first one's, with its quartiles; the bar tells milliseconds."""
    figure = go.Figure()
    names = list(dict.fromkeys(cell.model for cell in bench.cells))
    first = {(cell.runtime, cell.batch): cell for cell in reversed(bench.cells)}
    for number, name in enumerate(names):
        cells = [cell for cell in bench.cells if cell.model == name]
        bases = [first[cell.runtime, cell.batch].median_ms for cell in cells]
        pairs = list(zip(cells, bases, strict=True))
        figure.add_bar(
            x=[f"{cell.runtime}<br>batch {cell.batch}" for cell in cells],
            y=[cell.median_ms / base for cell, base in pairs],
            error_y={
                "type": "data", "symmetric": False,
                "array": [(cell.q3_ms - cell.median_ms) / base for cell, base in pairs],
                "arrayminus": [(cell.median_ms - cell.q1_ms) / base for cell, base in pairs],
            },
            text=[f"{cell.median_ms:.3g} ms" for cell in cells], textposition="inside", insidetextanchor="start",
            insidetextfont={"color": "white"}, name=name, marker={"color": (BASE_COLOR, *STAGE_COLORS)[number % 9]},
            hovertemplate="%{text}<br>%{y:.3f} of the first<extra>" + name + "</extra>",
        )  # fmt: skip
    figure.update_yaxes(title="time / baseline's")
    return _plain(figure)


def _by_stage(scores: Scores) -> list[tuple[str, list[tuple[int, Layer]]]]:
    """Layers with their place in the net, by stage, stem and head left out."""
    inside = {stage.name for stage in scores.stages}
    numbered = [(place, layer) for place, layer in enumerate(scores.layers, 1) if layer.stage in inside and layer.rf3d]
    return [(stage, list(group)) for stage, group in groupby(numbered, key=lambda pair: pair[1].stage)]


def _ceiling(scores: Scores, stage: str, layer: Layer) -> float | None:
    """The stage's whole map, where the published convention has one channel count per stage."""
    width = next(s.width for s in scores.stages if s.name == stage)
    return width * width * layer.channels if scores.convention == "published" and layer.channels else None


def _hover(layer: Layer) -> str:
    window = f", sees {times(layer.reach.window)}" if layer.reach else ""
    return f"{_plain_text(layer.name)}: {times(layer.out_shape)}, {count(layer.macs)} MACs{window}"


def _plain_text(name: str) -> str:
    """Plotly reads a few tags in its texts; a module's name is none."""
    return name.replace("&", "&amp;").replace("<", "&lt;")


def _color(number: int) -> str:
    return STAGE_COLORS[number % len(STAGE_COLORS)]


def _plain(figure: Any, x: str = "") -> Figure:
    """Shared looks, as JSON values without plotly's bulky default template."""
    figure.update_layout(
        template="none", margin=MARGIN, height=340, bargap=0.25, legend={"orientation": "h", "y": 1.12, "x": 0},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", hovermode="closest",
    )  # fmt: skip
    if x:
        figure.update_xaxes(title=x)
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    plain: Figure = json.loads(figure.to_json())
    return plain
