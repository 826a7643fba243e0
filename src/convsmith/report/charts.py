"""Charts of a run as plotly figures, in plain JSON values; colors that depend on light or dark are the page's."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from convsmith.bench import Bench, Latency
from convsmith.report.numbers import milliseconds
from convsmith.report.records import Step

Figure = dict[str, Any]

BASE_COLOR, NEW_COLOR = "#8a94a6", "#2f7de1"  # seen on light and on dark
COLORS = ("#2f7de1", "#e08a1e", "#2aa876", "#c2528b", "#7a63d2", "#c9a300", "#3fa7c4", "#d2604b")
MARGIN = {"l": 56, "r": 12, "t": 28, "b": 44}


def accuracy(nets: Mapping[str, Sequence[Step]]) -> Figure:
    """Test accuracy after each step and epoch, by net; one that only was evaluated is a dashed line across."""
    figure = go.Figure()
    for (name, steps), color in zip(nets.items(), (BASE_COLOR, NEW_COLOR)[-len(nets) :], strict=True):
        if moves(steps):
            figure.add_scatter(
                x=_places(steps), y=[100 * step.top1 for step in steps], text=[step.name for step in steps],
                name=plain_text(name), mode="lines+markers", line={"color": color},
                hovertemplate="%{text}: %{y:.2f} %<extra>" + plain_text(name) + "</extra>",
            )  # fmt: skip
        elif steps:
            figure.add_hline(
                y=100 * steps[0].top1, line={"color": color, "dash": "dash"}, annotation_position="bottom left",
                annotation_text=f"{plain_text(name)} {100 * steps[0].top1:.2f} %",
            )  # fmt: skip
    longest = max(nets.values(), key=len)
    ticks = dict(zip(_places(longest), (_tick(step, len(longest)) for step in longest), strict=True))
    figure.update_layout(showlegend=True)  # for one curve, too
    figure.update_yaxes(title="test top-1 (%)")
    shown = {place: name for place, name in ticks.items() if name}
    figure.update_xaxes(tickvals=[*shown], ticktext=[*shown.values()], zeroline=False)
    return plain(figure, "epoch" if any(step.epoch is not None for step in longest) else "")


def moves(steps: Sequence[Step]) -> bool:
    """Whether there is a curve to draw."""
    return len(steps) > 1 or any(step.epoch is not None for step in steps)


def _places(steps: Sequence[Step]) -> list[float]:
    """Epochs at their numbers; steps before and behind them as far apart as their names need."""
    epochs = [step.epoch for step in steps if step.epoch is not None]
    wide = max(1.0, len(epochs) / 8)
    first = next((place for place, step in enumerate(steps) if step.epoch is not None), len(steps))
    before = [1 - (first - place) * wide for place in range(first)]
    behind = [len(epochs) + (place + 1) * wide for place in range(len(steps) - first - len(epochs))]
    return [*before, *map(float, epochs), *behind]


def _tick(step: Step, steps: int) -> str:
    """What stands below a step: its name, or of about ten epochs the number."""
    if step.epoch is None:
        return step.name.replace(" (", "<br>(").replace(" ", "<br>", 1)
    return str(step.epoch) if step.epoch % -(-steps // 12) == 0 or step.epoch == 1 else ""


def latency(bench: Bench) -> Figure:
    """Median time of every model over the first one's, with its quartiles, in milliseconds beside the bar."""
    names = list(dict.fromkeys(cell.model for cell in bench.cells))
    groups = list(dict.fromkeys((cell.runtime, cell.batch) for cell in bench.cells))
    step = len(names) + 0.8  # from one group of bars to the next
    figure = go.Figure()
    for number, name in enumerate(names):
        cells = [cell for cell in bench.cells if cell.model == name]
        bases = [_first(bench, cell) for cell in cells]
        places = [step * groups.index((cell.runtime, cell.batch)) + number for cell in cells]
        tops = [cell.q3_ms / base for cell, base in zip(cells, bases, strict=True)]
        texts = [milliseconds(cell.median_ms) for cell in cells]
        figure.add_bar(
            x=[cell.median_ms / base for cell, base in zip(cells, bases, strict=True)], y=places, orientation="h",
            width=0.86, name=plain_text(name), marker={"color": (BASE_COLOR, *COLORS)[number % 9]},
            error_x={"type": "data", "symmetric": False, "thickness": 1.5, "width": 3} | _spread(cells, bases),
            text=texts, textposition="none",
            hovertemplate="%{text}<br>%{x:.3f} of the first<extra>" + plain_text(name) + "</extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=tops, y=places, text=[f" {text}" for text in texts], mode="text", textposition="middle right",
            cliponaxis=False, showlegend=False, hoverinfo="skip",
        )  # fmt: skip
    centers = [step * place + (len(names) - 1) / 2 for place in range(len(groups))]
    labels = [f"{runtime}<br>batch {batch}" for runtime, batch in groups]
    figure.update_yaxes(autorange="reversed", tickvals=centers, ticktext=labels, showgrid=False, zeroline=False)
    figure.update_xaxes(rangemode="tozero")
    drawn = plain(figure, f"time / {plain_text(names[0])}'s (less is better)" if names else "")
    drawn["layout"] |= {"height": 110 + round(22 * step * len(groups)), "margin": MARGIN | {"r": 64}}
    return drawn


def _first(bench: Bench, cell: Latency) -> float:
    """The time of the first model that ran as this one did."""
    return next(c.median_ms for c in bench.cells if (c.runtime, c.batch) == (cell.runtime, cell.batch))


def _spread(cells: Sequence[Latency], bases: Sequence[float]) -> dict[str, list[float]]:
    pairs = list(zip(cells, bases, strict=True))
    return {
        "array": [(cell.q3_ms - cell.median_ms) / base for cell, base in pairs],
        "arrayminus": [(cell.median_ms - cell.q1_ms) / base for cell, base in pairs],
    }


def plain_text(name: str) -> str:
    """Plotly reads a few tags in its texts; a module's name is none."""
    return name.replace("&", "&amp;").replace("<", "&lt;")


def plain(figure: Any, x: str = "") -> Figure:
    """Shared looks, as JSON values without plotly's bulky default template."""
    figure.update_layout(
        template="none", margin=MARGIN, height=340, bargap=0.25, hovermode="closest",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
    )  # fmt: skip
    if x:
        figure.update_xaxes(title=x)
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    drawn: Figure = json.loads(figure.to_json())
    return drawn
