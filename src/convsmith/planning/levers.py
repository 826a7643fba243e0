"""What is decided on under one limit: the layers, groups of channels and units of a net, and what each layer costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from convsmith.graph import Graph, Node
from convsmith.plan import Edit, Narrow, Plan, Refusal, Remove, Replace, Request
from convsmith.planning.budget import Costs
from convsmith.planning.candidates import Candidate, Trial
from convsmith.planning.edits import plan_of
from convsmith.planning.joint import Item, Joint, Way
from convsmith.planning.narrowing import Narrowing
from convsmith.planning.pricing import Choice
from convsmith.score.growth import published_growth, value
from convsmith.score.metric import score
from convsmith.structure.stages import effective_kernel, find_stages
from convsmith.structure.units import Unit, calls_inside
from convsmith.structure.widths import NOTHING, Widths


@final
@dataclass(frozen=True)
class Gone:
    """A unit of a stage that is taken out."""

    unit: Unit
    stage: str


@dataclass(frozen=True, eq=False)
class Levers:
    """All that can be done to a net, with the error of each way.

    Attributes:
        layers: By candidate, its choices, the first of which leaves it.
        groups: Widths of each group of channels with their errors.
        units: Units that can go, with the error of doing without.
    """

    layers: Sequence[tuple[Candidate, Sequence[Choice]]]
    groups: Sequence[Sequence[tuple[Narrowing, float]]] = ()
    units: Sequence[tuple[Gone, float]] = ()

    def joint(self, graph: Graph, costs: Costs) -> Joint:
        """The items of a decision, and what layers cost by them."""
        nodes = {node.module: node for node in graph.layers}
        items = [
            Item(c.layer, tuple(Way(choice, choice.output) for choice in _unbeaten(choices)), frozenset([c.layer]))
            for c, choices in self.layers
        ]
        for widths in self.groups:
            group = widths[0][0].group
            layers = frozenset(path for path in group.modules if path in nodes)
            others = frozenset(i for i, item in enumerate(items) if len(item.layers) == 1 and item.layers <= layers)
            ways = Way(None, 0.0), *(Way(narrowing, error) for narrowing, error in widths)
            items.append(Item(" + ".join(group.name), ways, layers, others))
        for gone, error in self.units:
            layers = frozenset(node.module for node in calls_inside(graph, gone.unit.modules) if node.kind)
            inside = frozenset(i for i, item in enumerate(items) if item.layers <= layers)
            items.append(Item(" + ".join(gone.unit.modules), (Way(None, 0.0), Way(gone, error)), layers, inside))

        def cost(layer: str, done: Mapping[int, Any]) -> float:
            return _cost(costs, graph, nodes[layer], list(done.values()))

        return Joint(tuple(items), cost)

    def scaled(self, ratios: Sequence[float]) -> "Levers":
        """The same with the prices of each item times a ratio of its own, in the order of `joint`."""
        left = iter(ratios)
        return Levers(
            [(c, _times(choices, ratio)) for (c, choices), ratio in zip(self.layers, left, strict=False)],
            [[(what, ratio * error) for what, error in group] for group, ratio in zip(self.groups, left, strict=False)],
            [(what, ratio * error) for (what, error), ratio in zip(self.units, left, strict=True)],
        )

    def least(self, graph: Graph, costs: Costs) -> float:
        """About the least that the net can be brought to: every layer at its cheapest, or gone."""
        gone = {node.module for each, _ in self.units for node in calls_inside(graph, each.unit.modules)}
        own = {c.layer: (costs.layer(c), min(choice.cost for choice in choices)) for c, choices in self.layers}
        saved = sum(was if layer in gone else was - least for layer, (was, least) in own.items())
        return costs.total - saved


def _times(choices: Sequence[Choice], ratio: float) -> list[Choice]:
    return [replace(choice, output=ratio * choice.output) for choice in choices]


def _unbeaten(choices: Sequence[Choice]) -> list[Choice]:
    """The layer as it is, and the choices that cost less than it and that no other beats in both."""
    stays, *others = choices
    kept = [stays]
    least = float("inf")
    for choice in sorted(others, key=lambda each: (each.output, each.cost)):
        if choice.cost < min(least, stays.cost):
            kept.append(choice)
            least = choice.cost
    return kept


def _cost(costs: Costs, graph: Graph, node: Node, done: Sequence[Any]) -> float:
    """Of a layer, by what is done to it and around it."""
    if any(isinstance(what, Gone) for what in done):
        return 0.0
    chosen = [what for what in done if isinstance(what, Choice) and what.trial is not None]
    if chosen:
        return chosen[0].cost
    return costs.narrowed(node, [what for what in done if isinstance(what, Narrowing)])


def plan_of_levers(
    graph: Graph,
    levers: Levers,
    chosen: Sequence[Any],
    refusals: Sequence[Refusal],
    asked: Request,
    costs: Costs,
    fixed: Sequence[tuple[Candidate, Trial]],
) -> Plan:
    """The plan of what was chosen for each lever, each edit with the errors that it was chosen by."""
    layers, rest = chosen[: len(levers.layers)], chosen[len(levers.layers) :]
    gone = {what: error for what, error in levers.units if what in rest}
    inside = {node.module for what in gone for node in calls_inside(graph, what.unit.modules)}
    pairs = list(zip(levers.layers, layers, strict=True))
    picked = [(candidate, choice.trial) for (candidate, _), choice in pairs if candidate.layer not in inside]
    plan = plan_of(graph, picked, refusals, asked, costs, fixed)
    choices = {candidate.layer: choice for (candidate, _), choice in pairs}
    replaced = [_told(edit, choices) for edit in plan.edits]
    errors = {id(what): error for group in levers.groups for what, error in group}
    widths = Widths.of(graph)
    narrowed = [what for what in rest if isinstance(what, Narrowing)]
    edits = [*replaced, *(_narrow(graph, what, errors[id(what)], narrowed, widths, costs) for what in narrowed)]
    left = tuple(each for each in plan.refusals if each.layer not in _touched(narrowed))
    return replace(plan, edits=(*edits, *removals(graph, gone, costs)), refusals=left)


def _touched(narrowed: Sequence[Narrowing]) -> set[str]:
    return {path for what in narrowed for path in what.group.modules}


def _told(edit: Edit, choices: Mapping[str, Choice]) -> Edit:
    """An edit of a layer with the errors that it was chosen by."""
    if not isinstance(edit, Replace) or edit.layer not in choices:
        return edit
    output, here = (100 * error**0.5 for error in (choices[edit.layer].output, choices[edit.layer].error))
    reason = f"predicted error: {output:.2g} % of the net's output, {here:.2g} % of the layer's"
    return replace(edit, reason=reason, output_error=output / 100)


def _narrow(
    graph: Graph, what: Narrowing, error: float, narrowed: Sequence[Narrowing], widths: Widths, costs: Costs
) -> Narrow:
    """An edit that narrows a group, with its costs where those before it have been made."""
    before = narrowed[: narrowed.index(what)]
    gone = NOTHING
    for each in before:
        gone = widths.without(each.group, each.kept, gone)
    left = widths.without(what.group, what.kept, gone)
    params, macs = zip(widths.cost(what.group, gone), widths.cost(what.group, left), strict=True)
    ms = [0.0, 0.0]
    for node in graph.layers if costs.latencies is not None else ():
        if node.module in what.group.modules:
            for i, done in enumerate((before, [*before, what])):
                ms[i] += costs.narrowed(node, done) / 1e6
    reason = f"of {what.group.width} channels; predicted error: {100 * error**0.5:.2g} % of the net's output"
    return Narrow(
        what.group.name, what.width, what.kept, reason, macs, params, output_error=error**0.5,
        latency_ms=None if costs.latencies is None else (ms[0], ms[1]),
    )  # fmt: skip


def removals(graph: Graph, gone: Mapping[Gone, float], costs: Costs) -> list[Remove]:
    """An edit for each unit that goes, with what its stage then gains less."""
    stages = find_stages(graph, graph.reaches())
    scores = score(graph)
    found: list[Remove] = []
    out: set[str] = set()
    for what, error in gone.items():
        (stage,) = (each for each in stages.stages if each.name == what.stage)
        sums = []
        for more in ((), what.unit.convs):
            out |= set(more)
            kernels = [effective_kernel(node) for node in stage.counted if node.name not in out]
            steps = published_growth(kernels, stage.map, 1.0, scores.alpha, scores.clamp)
            sums.append((sum(step.gain for step in steps), value(step.gain for step in steps)))
        ms = None
        if costs.latencies is not None:
            ms = (1e3 * costs.latencies.of(what.unit.modules), 0.0)
        found.append(
            Remove(
                what.unit.modules, what.stage,
                f"what follows makes good what it did; predicted error: {100 * error**0.5:.2g} % of the net's output",
                (what.unit.params, 0), (what.unit.macs, 0), sums[1][0] - sums[0][0], sums[1][1] - sums[0][1], ms,
            )
        )  # fmt: skip
    return found
