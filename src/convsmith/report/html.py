"""The parts of a page: text made safe, tables, charts, and the frame that needs no network."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

from plotly.offline import get_plotlyjs

from convsmith.bench import FASTER, SLOWER
from convsmith.report.charts import Figure
from convsmith.report.net_tables import SHOWN, by_cost, kernel, more_idle
from convsmith.report.numbers import count
from convsmith.score.advice import Advice, Finding
from convsmith.score.records import Layer, Scores
from convsmith.text import times


def section(title: str, note: str, *parts: str) -> str:
    """A card with a title, a line on how to read it, and its parts."""
    lead = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{lead}{''.join(parts)}</section>"


@dataclass(frozen=True)
class Tile:
    """A headline number: its value, what it is, and a line below with its verdict (faster, slower or none)."""

    value: str
    name: str
    note: str = ""
    verdict: str = ""


def tiles(values: Iterable[Tile]) -> str:
    """Headline numbers in a row that breaks where it must."""
    cells = (
        f'<div class="tile"><span>{escape(tile.name)}</span><b>{escape(tile.value)}</b>'
        f'<small class="{escape(tile.verdict)}">{escape(tile.note)}</small></div>'
        for tile in values
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a leading `>` aligns a column right, `edit` and `why` wrap at a least width, verdicts are colored."""
    names = [column.removeprefix(">") for column in columns]
    kinds = ["number" if c.startswith(">") else c if c in ("edit", "why") else "" for c in columns]
    head = "".join(f'<th class="{kind}">{escape(name)}</th>' for kind, name in zip(kinds, names, strict=True))
    body = "".join(
        f"<tr>{''.join(_cell(kind, text) for kind, text in zip(kinds, row, strict=True))}</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(kind: str, text: str) -> str:
    last = text.rpartition(" ")[2]
    verdict = last if last in (FASTER, SLOWER) else ""
    return f'<td class="{kind} {verdict}">{escape(text)}</td>'


def plot(name: str, title: str = "") -> str:
    """Where the page's script draws the figure of that name."""
    head = f"<h3>{escape(title)}</h3>" if title else ""
    return f'<div>{head}<div class="plot" id="{escape(name)}"></div></div>'


def pair(*parts: str) -> str:
    """Parts side by side where there is room."""
    return f'<div class="pair">{"".join(parts)}</div>'


def facts(groups: Mapping[str, Mapping[str, Any]]) -> str:
    """Names and values in titled lists, side by side where there is room; what is empty is left out."""
    lists = []
    for title, values in groups.items():
        shown_values = [(name, shown) for name, value in values.items() if (shown := _shown(value))]
        pairs = "".join(f"<dt>{escape(name)}</dt><dd>{escape(shown)}</dd>" for name, shown in shown_values)
        lists += [f"<div><h3>{escape(title)}</h3><dl>{pairs}</dl></div>"] if shown_values else []
    return f'<div class="facts">{"".join(lists)}</div>'


def _shown(value: Any) -> str:
    """A JSON value in words: entries in a row, those without a value left out.

    >>> _shown({"classes": 10, "mean": None}), _shown([3, 32, 32]), _shown(None)
    ('classes 10', '3, 32, 32', '')
    """
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(own)}" for name, own in value.items() if own is not None)
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return "" if value is None else str(value)


LAYER_COLUMNS = ("layer", "stage", "kernel", "in", "out", ">params", ">MACs", ">window", ">channels", ">gain")


def layer_table(scores: Scores, advice: Advice | None = None) -> str:
    """Every layer with its costs, window and gain, idle ones marked; a click on a header sorts, words typed filter."""
    idle = advice.idle if advice else frozenset()
    marks = [("idle" if place in idle else "",) if idle else () for place in range(len(scores.layers))]
    columns = LAYER_COLUMNS + (("idle",) if idle else ())
    head = "".join(
        f'<th aria-sort="none" tabindex="0" class="{"number" if c[:1] == ">" else ""}">{c.removeprefix(">")}</th>'
        for c in columns
    )
    rows = [_layer_row(layer, scores.model, mark) for layer, mark in zip(scores.layers, marks, strict=True)]
    only = '<label><input type="checkbox"> idle only</label>' if idle else ""
    return (
        '<div class="layer-table"><div class="filter"><input type="search" placeholder="filter, as: stage2 3x3" '
        f'aria-label="filter layers">{only}<span class="shown">{len(rows)} layers</span></div>'
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div></div>'
    )


def _layer_row(layer: Layer, model: str, mark: tuple[str, ...]) -> str:
    seen = layer.reach
    words = (layer.name or model, layer.stage, kernel(layer), times(layer.in_shape), times(layer.out_shape))
    numbers = (
        (layer.params, count(layer.params)),
        (layer.macs, count(layer.macs)),
        (max(seen.window, default=0) if seen else -1, times(seen.window) if seen else "unknown"),
        (seen.channels if seen else -1, f"{seen.channels:.4g}" if seen else "unknown"),
        (layer.gain, f"{layer.gain:.4f}"),
    )
    cells = [f"<td>{escape(word)}</td>" for word in words]
    cells += [f'<td class="number" data-value="{value}">{text}</td>' for value, text in numbers]
    cells += [f"<td>{word}</td>" for word in mark]
    return f'<tr class="{"".join(mark)}">{"".join(cells)}</tr>'


def findings(advice: Advice) -> str:
    """Advice as a list, the dearest idle layers first of their kind; many stand behind a fold."""
    idle, others = by_cost(advice)
    folded = idle[SHOWN:]
    more = f"<details><summary>{more_idle(len(folded))}</summary>{_list(folded)}</details>" if folded else ""
    return _list([*idle[:SHOWN], *others]) + more


def _list(findings: Sequence[Finding]) -> str:
    items = (f"<li><b>{escape(finding.kind)}</b> <span>{_code(finding.advice)}</span></li>" for finding in findings)
    return f'<ul class="advice">{"".join(items)}</ul>'


def _code(text: str) -> str:
    """Escaped; what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def page(title: str, body: Sequence[str], figures: dict[str, Figure]) -> str:
    """One file with style, script, plotly and figures inside."""
    style, script = (files("convsmith.report").joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    # "</" inside a script would end it
    drawn = json.dumps(figures).replace("</", "<\\/")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{style}</style><script>{get_plotlyjs()}</script></head>\n"
        f"<body><main>{''.join(body)}</main><script>const FIGURES = {drawn};\n{script}</script></body></html>\n"
    )
