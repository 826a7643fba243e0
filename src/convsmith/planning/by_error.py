"""Plans for trained nets by the errors on images: what layers, channels and units may become, each with its price."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
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
from convsmith.planning.repricing import LEAST, Judge, Judged
from convsmith.planning.settling import Settle, as_planned
from convsmith.planning.width_prices import narrowable, narrowings
from convsmith.progress import Progress, silent

# What has no window to take apart can be of lower rank between channels; a gate's or the head's 1x1 is worth no fit.
POINTWISE = "channel:r=4"
# With data these compete.
FAMILIES = ("dw-pw", "cp:r=8", "spatial:r=8", "tucker:r=8,s=8", POINTWISE)


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained net, and what its errors are measured with.

    Attributes:
        model: The module.
        graph: What was captured of it.
        images: (n, c, h, w), normalized as it reads them. Without any, the errors of layers count themselves.
        method: Whose errors choose; None for the best that each block knows.
        statistics: Moments of layers; by default those of the images.
        seed: Draws positions.
        latencies: For a limit on latency.
        progress: Told of every layer.
        prices: A file that keeps what was worked out, so that the same call goes on where it was stopped.
    """

    model: nn.Module
    graph: Graph
    images: Pictures | None
    method: str | None = None
    statistics: Mapping[str, Statistics] | None = None
    seed: int = 0
    latencies: Latencies | None = None
    progress: Progress = silent
    prices: Path | None = None

    @cached_property
    def effect(self) -> Effect | None:
        """Measures what edits do to the net's output, where there are images."""
        return None if self.images is None else Effect(self.model, self.images)

    def kept(self, costs: Costs) -> Prices:
        """The prices worked out so far for these costs."""
        told = (
            self.model, self.images, self.graph.fingerprint, self.method, self.seed, self.statistics is not None,
            costs.latencies is None,
        )  # fmt: skip
        return Prices(self.prices, "" if self.prices is None else digest(*told))

    def moments(self, layers: Iterable[str]) -> Mapping[str, Statistics]:
        """Those given, or those of layers on the images."""
        if self.statistics is not None:
            return self.statistics
        if self.images is None:
            raise ValueError("neither images nor statistics to choose ranks by")
        wanted = list(dict.fromkeys(layers))
        return calibrate(self.model, self.images, wanted, seed=self.seed, progress=self.progress)


def plan_by_error(net: Trained, asked: Request, settle: Settle = as_planned, judged: int = 0) -> Plan:
    """A plan for a trained net that spends a limit by the errors it causes: per layer keep, decompose, and the rank.

    A few ranks of each layer are fitted by the net's method to the statistics. What each does to the output is measured
    by running images on from there. Between them the errors' logarithms are taken to fall in proportion to the MACs,
    and the squared errors of layers to add up. settle: holds plans to what is measured. judged: so many plans are
    carried out in short and judged by what they do; 0 takes the choice as prices have it. Raises ConvsmithError where
    the limit cannot be met.
    """
    found = price(net, asked)
    if not judged or net.images is None or len(net.images) < LEAST:
        return settle(lambda costs: found.within(asked, costs), found.costs)
    judge = Judge(net.model, net.images, net.method, net.seed, judged, net.kept(found.costs), net.progress)
    return settle(Judged(found, judge, asked).within, found.costs)


def price(net: Trained, asked: Request) -> Priced:
    """Work out what can be done to a net, for plans within the limit that is asked for, and cheaper ones."""
    model, graph, effect = net.model, net.graph, net.effect
    costs = Costs.of(graph, asked, net.latencies)
    fixed = overridden(graph, asked.overrides, asked.keep)
    by_layer, refusals = _candidates(graph, asked, net.method)
    # What is refitted or goes must not be a layer that was asked to stay, or to become something of its own.
    left = (*asked.keep, *asked.overrides)
    groups, unfit = narrowable(graph, left) if asked.width else ([], [])
    units = removable(graph, left) if asked.depth and net.images is not None else []
    readers = [part.module for group in groups for part in group.consumers]
    statistics, kept = net.moments([*by_layer, *readers]), net.kept(costs)
    pricing = Pricing(model, graph, statistics, net.method, costs, effect, kept)
    done, total = count(), len(by_layer) + len(groups) + len(units)
    layers, widths, gone = [], [], []
    for layer, families in by_layer.items():
        net.progress(f"pricing {layer}", next(done), total)
        layers.append((families[0], pricing.choices(families)))
    for group in groups:
        net.progress(f"pricing widths of {group.name[0]}", next(done), total)
        if all(part.module in statistics for part in group.consumers):
            widths.append(narrowings(model, graph, group, statistics, effect, kept))
    for stage, unit in units:
        net.progress(f"pricing the net without {unit.modules[0]}", next(done), total)
        if net.images is not None and effect is not None:
            gone.append((Gone(unit, stage), without(model, graph, unit, net.images, effect, kept, net.seed)))
    levers = Levers(layers, [narrowed for narrowed in widths if narrowed], gone)
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
