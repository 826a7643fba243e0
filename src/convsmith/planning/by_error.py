"""Plans for trained nets by the errors on images: what layers, channels and units may become, each with its price."""

from collections.abc import Mapping
from itertools import count
from math import prod
from pathlib import Path

from torch import nn

from convsmith.algebra import METHODS
from convsmith.algebra.second_moments import Statistics
from convsmith.blocks import parse_block
from convsmith.calibration.calibrate import TAPS, calibrate, too_many
from convsmith.calibration.pictures import Pictures
from convsmith.graph import Graph, Node
from convsmith.latency.latencies import Latencies
from convsmith.plan import Plan, Refusal, Request
from convsmith.planning.allocation import Priced
from convsmith.planning.budget import Costs
from convsmith.planning.candidates import Candidate, consider, overridden
from convsmith.planning.depth_prices import removable, without
from convsmith.planning.levers import Gone, Levers
from convsmith.planning.prices import Prices, digest
from convsmith.planning.pricing import Effect, Pricing
from convsmith.planning.settling import Settle, as_planned
from convsmith.planning.width_prices import narrowable, narrowings
from convsmith.progress import Progress, silent

# What has no window to take apart can be of lower rank between channels; a gate's or the head's 1x1 is worth no fit.
POINTWISE = "channel:r=4"
# With data these compete.
FAMILIES = ("dw-pw", "cp:r=8", "spatial:r=8", "tucker:r=8,s=8", POINTWISE)


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
    prices: a file to keep what was worked out in, so that the same call goes on where it was stopped.
    settle: holds plans to what is measured. Raises ConvsmithError where the limit cannot be met.
    """
    found = price(model, graph, asked, images, method, statistics, seed, latencies, progress, prices)
    return settle(lambda costs: found.within(asked, costs), found.costs)


def price(
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
) -> Priced:
    """Work out what can be done to a net, for plans within the limit that is asked for, and cheaper ones."""
    costs = Costs.of(graph, asked, latencies)
    fixed = overridden(graph, asked.overrides, asked.keep)
    by_layer, refusals = _candidates(graph, asked, method)
    given = statistics is not None
    # What is refitted or goes must not be a layer that was asked to stay, or to become something of its own.
    left = (*asked.keep, *asked.overrides)
    groups, unfit = narrowable(graph, left) if asked.width else ([], [])
    units = removable(graph, left) if asked.depth and images is not None else []
    if statistics is None:
        if images is None:
            raise ValueError("neither images nor statistics to choose ranks by")
        readers = [part.module for group in groups for part in group.consumers]
        statistics = calibrate(model, images, list(dict.fromkeys([*by_layer, *readers])), seed=seed, progress=progress)
    told = model, images, graph.fingerprint, method, seed, given, costs.latencies is None
    kept = Prices(prices, "" if prices is None else digest(*told))
    effect = None if images is None else Effect(model, images)
    pricing = Pricing(model, graph, statistics, method, costs, effect, kept)
    done, total = count(), len(by_layer) + len(groups) + len(units)
    layers, widths, gone = [], [], []
    for layer, families in by_layer.items():
        progress(f"pricing {layer}", next(done), total)
        layers.append((families[0], pricing.choices(families)))
    for group in groups:
        progress(f"pricing widths of {group.name[0]}", next(done), total)
        if all(part.module in statistics for part in group.consumers):
            widths.append(narrowings(model, graph, group, statistics, effect, kept))
    for stage, unit in units:
        progress(f"pricing the net without {unit.modules[0]}", next(done), total)
        if images is not None and effect is not None:
            gone.append((Gone(unit, stage), without(model, graph, unit, images, effect, kept, seed)))
    levers = Levers(layers, [each for each in widths if each], gone)
    return Priced(graph, costs, levers, (*refusals, *unfit), fixed)


def _families(asked: Request, method: str | None) -> list[str]:
    """The blocks that compete, those among them that the method knows how to fit."""
    if asked.block != "auto":
        return [asked.block]
    known = None if method is None else {form.name for form in METHODS[method]}
    return [name for name in FAMILIES if known is None or parse_block(name).name in known]


def _candidates(
    graph: Graph, asked: Request, method: str | None = None
) -> tuple[dict[str, list[Candidate]], list[Refusal]]:
    """What each layer may become, in order of execution, a candidate for each family of blocks; and what stays."""
    found: dict[str, list[Candidate]] = {}
    left: dict[str, str] = {}
    for name in _families(asked, method):
        block, skip = parse_block(name), set(asked.overrides)
        if name == POINTWISE != asked.block:
            skip |= {node.module for node in graph.layers if _head(node)}
        candidates, refusals = consider(graph, [block], forced=True, ranked=True, keep=asked.keep, skip=skip)
        for candidate in candidates:
            if candidate.spec.in_channels * prod(candidate.spec.kernel) > TAPS:
                left[candidate.layer] = f"a convolution {too_many(candidate.spec)}"
            elif candidate.trials:
                found.setdefault(candidate.layer, []).append(candidate)
            left.setdefault(candidate.layer, f"{block} would cost more")
        for refusal in refusals:
            left.setdefault(refusal.layer, refusal.reason)
    ordered = {node.module: found[node.module] for node in graph.layers if node.module in found}
    return ordered, [Refusal(layer, reason) for layer, reason in left.items() if layer not in found]


def _head(node: Node) -> bool:
    """Whether a layer is pointwise and of one pixel."""
    spec = node.conv_spec()
    return spec is not None and prod(spec.kernel) == 1 == prod(node.call.out[2:])
