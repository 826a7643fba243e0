"""The front of budgets: a table, and a page with a slider over its plans."""

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files

import plotly.graph_objects as go
from rich.console import RenderableType

from convsmith.optimize import Front, Point
from convsmith.report.charts import BASE_COLOR, COLORS, NEW_COLOR, Figure, plain, plain_text
from convsmith.report.html import page, plot, section, table
from convsmith.report.numbers import count, percent
from convsmith.report.tables import edit_rows, grid

COLUMNS = (">limit", ">MACs", ">of the net's", ">ms", ">output error", ">top-1")
NOTE = (
    "The error of the output is predicted for every plan: squared errors of layers add up. Accuracy was measured where "
    "a plan has one, right after its weights were fitted and before any training. Times are predicted by module."
)


def front_table(front: Front) -> RenderableType:
    """Plans from the cheapest to the net as it is."""
    made = grid(f"Front of {front.points[0].plan.model}", *COLUMNS)
    for row in front_rows(front):
        made.add_row(*row)
    return made


def front_rows(front: Front) -> list[tuple[str, ...]]:
    """A plan each, and the net as it is; where it was measured, also in int8."""
    base = front.points[0].plan
    ms = "" if base.base_ms is None else f"{base.base_ms:.3g}"
    rows = [_row(point) for point in front.points]
    rows.append(("as it is", count(base.base.macs), "1.000x", ms, "0", _top1(front.top1)))
    return rows + ([("int8 alone", "", "", "", "", _top1(front.int8))] if front.int8 is not None else [])


def _row(point: Point) -> tuple[str, ...]:
    ms = "" if point.latency_ms is None else f"{point.latency_ms:.3g}"
    cost = count(point.plan.new.macs), f"{point.macs:.3f}x", ms
    return (f"{point.limit:.3f}x", *cost, f"{100 * point.error:.2g} %", _top1(point.top1))


def _top1(value: float | None) -> str:
    return "" if value is None else percent(value)


def front_page(front: Front) -> str:
    """One page that needs no network: the chart, a slider over the plans, the plan's edits, and its file."""
    first = front.points[0].plan
    plans = json.dumps([point.plan.to_json() for point in front.points]).replace("</", "<\\/")
    script = files("convsmith.report").joinpath("front.js").read_text("utf-8")
    last = len(front.points) - 1
    body = [
        f"<h1>{escape(first.model)}: what each limit costs</h1>",
        section(
            "The trade-off", NOTE, plot("front"),
            f'<p><label>Plan <input id="slider" type="range" min="0" max="{last}" value="{last // 2}" step="1" '
            'style="width:100%" aria-label="plan"></label></p>',
            *(_panel(number, point) for number, point in enumerate(front.points)),
            '<p><button id="download" type="button">Download plan.json</button></p>',
        ),
        section("All plans", "", table(COLUMNS, front_rows(front))),
        f"<script>const PLANS = {plans};\n{script}</script>",
    ]  # fmt: skip
    return page(f"convsmith: front of {first.model}", body, {"front": figure(front)})


def _panel(number: int, point: Point) -> str:
    """What the slider shows of one plan."""
    facts = table(COLUMNS, [_row(point)])
    edits = table(("layer", "edit", "why"), edit_rows(point.plan))
    return f'<div class="plan" data-plan="{number}" hidden>{facts}<h3>Edits</h3>{edits}</div>'


def figure(front: Front) -> Figure:
    """Accuracy where it was measured, else predicted error, against MACs or where known time; the last is the slider's.

    The plan behind the slider is marked in a trace of its own.
    """
    timed = front.points[0].latency_ms is not None
    measured = front.top1 is not None
    drawn = go.Figure()
    x = [point.latency_ms if timed else point.macs for point in front.points]
    error = [100 * point.error for point in front.points]
    base = front.points[0].plan.base_ms if timed else 1.0
    if measured:
        places = [place for place, point in enumerate(front.points) if point.top1 is not None]
        top1 = [100 * (front.points[place].top1 or 0.0) for place in places]
        _line(drawn, "top-1, measured (%)", [x[place] for place in places], top1, NEW_COLOR)
        _mark(drawn, "original", base, 100 * (front.top1 or 0.0), BASE_COLOR)
        if front.int8 is not None and not timed:
            _mark(drawn, "int8 alone", base, 100 * front.int8, COLORS[1])
    else:
        _mark(drawn, "original", base, 0.0, BASE_COLOR)
    _line(drawn, "error of the output, predicted (%)", x, error, COLORS[2], "y2" if measured else "y")
    drawn.add_scatter(
        x=[x[0]], y=[error[0]], name="this plan", mode="markers", hoverinfo="skip", yaxis="y2" if measured else "y",
        marker={"size": 15, "symbol": "circle-open", "color": COLORS[3], "line": {"width": 3}},
    )  # fmt: skip
    drawn.update_layout(yaxis={"title": {"text": "top-1 (%)" if measured else "error (%)"}})
    if measured:
        drawn.update_layout(
            yaxis2={"title": {"text": "error (%)"}, "overlaying": "y", "side": "right", "showgrid": False}
        )
    return plain(drawn, "predicted ms" if timed else "share of the net's MACs")


def _line(
    drawn: "go.Figure", name: str, x: Sequence[float | None], y: Sequence[float], color: str, axis: str = "y"
) -> None:
    drawn.add_scatter(
        x=list(x), y=list(y), name=plain_text(name), mode="lines+markers", line={"color": color}, yaxis=axis
    )


def _mark(drawn: "go.Figure", name: str, x: float | None, y: float, color: str) -> None:
    drawn.add_scatter(x=[x], y=[y], name=name, mode="markers", marker={"color": color, "size": 11, "symbol": "diamond"})
