"""The page of one net's folder: how accurate it is after each step of its way, and the plans it went through."""

from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

from convsmith.load import read_origin, read_plan
from convsmith.optimize import made_by
from convsmith.plan import Plan
from convsmith.report.charts import Figure
from convsmith.report.falls import alerts, falls
from convsmith.report.html import Tile, facts, page, section, tiles
from convsmith.report.numbers import change, count, percent
from convsmith.report.records import NetRecords, read_net
from convsmith.report.sections import accuracy_section, exports_section, plan_section


def folder_page(folder: Path) -> str:
    """What `apply` and `train` left in a folder as one page; raises ConvsmithError where a record cannot be read."""
    origin, net = read_origin(folder), read_net(folder)
    plans = [read_plan(folder / file) for file in origin.plans]
    name, figures = f"{origin.reference.removeprefix('zoo:')}, {made_by(plans)}", dict[str, Figure]()
    numbers = [f"Plan {number}" if len(plans) > 1 else "Blocks" for number in range(1, len(plans) + 1)]
    body = [
        f"<h1>{escape(name)}</h1>",
        *alerts(falls(net)),
        tiles([*_costs(plans), *_accuracy(net)]),
        *accuracy_section([net], figures),
        *map(plan_section, numbers, plans),
        *exports_section([net]),
        section("Where the net comes from", "", facts({"model": asdict(origin)})),
    ]
    return page(f"convsmith: {name}", body, figures)


def _costs(plans: Sequence[Plan]) -> list[Tile]:
    if not plans:
        return []
    base, new = plans[0].base, plans[-1].new
    return [
        Tile(count(after), name, f"{change(before, after)} of {count(before)}")
        for name, before, after in (("parameters", base.params, new.params), ("MACs", base.macs, new.macs))
    ]


def _accuracy(net: NetRecords) -> list[Tile]:
    if net.final is None:
        return []
    first = net.evaluations[0]
    points = f"{100 * (net.final.top1 - first.top1):+.2f} points, {first.when} {percent(first.top1)}"
    return [Tile(percent(net.final.top1), "top-1 accuracy", points if first is not net.final else "")]
