"""Which layers to decompose, and at what rank, within a limit: the least predicted error of the net's output."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

from torch import nn

from convsmith.algebra import METHODS
from convsmith.algebra.second_moments import Statistics
from convsmith.blocks import parse_block
from convsmith.calibration.calibrate import calibrate
from convsmith.calibration.pictures import Pictures
from convsmith.graph import Graph
from convsmith.latency.latencies import Latencies
from convsmith.plan import Plan, Refusal, Replace, Request
from convsmith.planning.budget import Costs
from convsmith.planning.candidates import Candidate, consider, overridden
from convsmith.planning.edits import plan_of
from convsmith.planning.prices import Prices, digest
from convsmith.planning.pricing import Choice, Effect, Pricing
from convsmith.planning.settling import Settle, as_planned
from convsmith.progress import Progress, silent

# With data the separable form competes with the three-way form, which contains it and costs more per rank.
FAMILIES = ("dw-pw", "cp:r=8")
# Of what has no window to take apart the rank between channels is left; a gate's or the head's 1x1 is worth no fit.
POINTWISE = "channel:r=4"
CHEAPER = "plan without data, which knows cheaper blocks, and fit them with `apply --data`"
# Costs are told apart down to this share of the limit, rounded up, so that a choice never breaks it.
GRAIN = 4096


def choose(options: Sequence[Sequence[Choice]], limit: float) -> list[Choice] | None:
    """One choice for each layer, with the least sum of `output` whose costs keep the limit; None where none does.

    Dynamic programming over layers on costs in grains of limit / 4096; exact where costs are multiples of a grain.

    >>> layer = [Choice(None, 4), Choice(None, 2, output=0.1), Choice(None, 1, output=0.4)]
    >>> [choice.cost for choice in choose([layer, layer], 4)]
    [2, 2]
    """
    if limit < 0:
        return None
    grain = max(1.0, limit / GRAIN)
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    for layer in options:
        grown: dict[int, tuple[float, tuple[int, ...]]] = {}
        for spent, (error, picks) in best.items():
            for index, choice in enumerate(layer):
                cost = spent + -int(-choice.cost // grain)
                total = error + choice.output
                if cost * grain <= limit * (1 + 1e-9) and total < grown.get(cost, (float("inf"), ()))[0]:
                    grown[cost] = total, (*picks, index)
        best = _unbeaten(grown)
    if not best:
        return None
    _, picks = min(best.values())
    return [layer[index] for layer, index in zip(options, picks, strict=True)]


def _unbeaten(states: dict[int, tuple[float, tuple[int, ...]]]) -> dict[int, tuple[float, tuple[int, ...]]]:
    """The states that no cheaper one beats in error."""
    kept: dict[int, tuple[float, tuple[int, ...]]] = {}
    least = float("inf")
    for cost in sorted(states):
        if states[cost][0] < least:
            kept[cost], least = states[cost], states[cost][0]
    return kept


def plan_by_error(
    model: nn.Module,
    graph: Graph,
    asked: Request,
    images: Pictures | None,
    method: str | None = None,
    statistics: Mapping[str, Statistics] | None = None,
    seed: int = 0,
    latencies: Latencies | None = None,
    progress: Progress = silent,
    prices: Path | None = None,
    settle: Settle = as_planned,
) -> Plan:
    """A plan for a trained net that spends a limit by the errors it causes: per layer keep, decompose, and the rank.

    A few ranks of each layer are fitted by `method` to the statistics. What each does to the output is measured by
    running `images` (n, c, h, w) on from there. Between them the errors' logarithms are taken to fall in proportion to
    the MACs, and the squared errors of layers to add up. Without images the errors of layers count themselves.
    statistics: by default those of the images. latencies: for a limit on latency. progress: told of every layer.
    prices: a file to keep what was worked out in, so that the same call goes on where it was stopped. Raises
    ConvsmithError where the limit cannot be met.
    """
    costs = Costs.of(graph, asked, latencies)
    fixed = overridden(graph, asked.overrides, asked.keep)
    by_layer, refusals = _candidates(graph, asked, method)
    given = statistics is not None
    if statistics is None:
        if images is None:
            raise ValueError("neither images nor statistics to choose ranks by")
        statistics = calibrate(model, images, list(by_layer), seed=seed, progress=progress)
    kept = Prices(prices, "" if prices is None else digest(model, images, graph.fingerprint, method, seed, given))
    effect = None if images is None else Effect(model, images)
    pricing = Pricing(model, graph, statistics, method, costs, effect, kept)
    options: list[list[Choice]] = []
    for layer, families in by_layer.items():
        progress(f"pricing {layer}", len(options), len(by_layer))
        options.append(pricing.choices(families))
    layers = [families[0] for families in by_layer.values()]
    rest = costs.total + costs.change(fixed) - sum(map(costs.layer, layers))

    def within(costs: Costs) -> Plan:
        chosen = choose(options, costs.limit - rest)
        if chosen is None:
            least = rest + sum(min(choice.cost for choice in layer) for layer in options)
            raise costs.unmet(least, CHEAPER if asked.block == "auto" else "choose a cheaper block")
        picked = [(candidate, choice.trial) for candidate, choice in zip(layers, chosen, strict=True)]
        plan = plan_of(graph, picked, refusals, replace(asked, by="errors"), costs, fixed)
        return _with_errors(plan, dict(zip(by_layer, chosen, strict=True)))

    return settle(within, costs)


def _families(asked: Request, method: str | None) -> list[str]:
    """The blocks that compete, those among them that the method knows how to fit."""
    if asked.block != "auto":
        return [asked.block]
    known = None if method is None else {form.name for form in METHODS[method]}
    return [name for name in (*FAMILIES, POINTWISE) if known is None or parse_block(name).name in known]


def _candidates(
    graph: Graph, asked: Request, method: str | None = None
) -> tuple[dict[str, list[Candidate]], list[Refusal]]:
    """What each layer may become, in order of execution, a candidate for each family of blocks; and what stays."""
    found: dict[str, list[Candidate]] = {}
    left: dict[str, str] = {}
    for name in _families(asked, method):
        block, skip = parse_block(name), set(asked.overrides)
        if name == POINTWISE != asked.block:
            skip |= {node.module for node in graph.layers if node.module in found or prod(node.call.out[2:]) == 1}
        candidates, refusals = consider(graph, [block], forced=True, ranked=True, keep=asked.keep, skip=skip)
        for candidate in candidates:
            if candidate.trials:
                found.setdefault(candidate.layer, []).append(candidate)
            left.setdefault(candidate.layer, f"{block} would cost more")
        for refusal in refusals:
            left.setdefault(refusal.layer, refusal.reason)
    ordered = {node.module: found[node.module] for node in graph.layers if node.module in found}
    return ordered, [Refusal(layer, reason) for layer, reason in left.items() if layer not in found]


def _with_errors(plan: Plan, choices: Mapping[str, Choice]) -> Plan:
    """The plan, each layer's reason being the errors it was chosen by."""
    told = {layer: (choice.output**0.5, choice.error**0.5) for layer, choice in choices.items()}
    edits = (
        replace(e, reason=_reason(*told[e.layer]), output_error=told[e.layer][0])
        if isinstance(e, Replace) and e.layer in told
        else e
        for e in plan.edits
    )
    return replace(plan, edits=tuple(edits))


def _reason(output: float, here: float) -> str:
    return f"predicted error: {100 * output:.2g} % of the net's output, {100 * here:.2g} % of the layer's"
