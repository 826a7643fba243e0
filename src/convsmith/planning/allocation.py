"""Which layers to decompose, and at what rank, under a budget: the least predicted error of the net's output."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import inf, prod

import numpy as np
import torch
from torch import Tensor, nn

from convsmith.algebra import METHODS, FitRequest
from convsmith.algebra.second_moments import Statistics
from convsmith.blocks import Block, parse_block
from convsmith.calibration.calibrate import BATCH, calibrate
from convsmith.calibration.fitting import fitted_to, own_statistics
from convsmith.calibration.pictures import Pictures
from convsmith.errors import PlanError, at
from convsmith.graph import Graph
from convsmith.graph.capture import capture
from convsmith.graph.replay import Replay
from convsmith.kernels.spec import ConvSpec
from convsmith.latency.measure import Latencies
from convsmith.plan import Plan, Refusal, Replace, Request
from convsmith.planning.budget import Costs
from convsmith.planning.candidates import Candidate, Trial, consider, overridden
from convsmith.planning.edits import plan_of
from convsmith.progress import Progress, silent

# With data the separable form competes with the three-way form, which contains it and costs more per rank.
FAMILIES = ("dw-pw", "cp:r=8")
# Of what has no window to take apart the rank between channels is left; a gate's or the head's 1x1 is worth no fit.
POINTWISE = "channel:r=4"
# Ranks fitted per layer and family, of those up to twice the budget's share: dearer ones are hardly ever chosen.
TRIED = 5
CHEAPER = "plan without data, which knows cheaper blocks, and fit them with `apply --data`"
# Costs are told apart down to this share of the budget, rounded up, so that a choice never breaks it.
GRAIN = 4096


@dataclass(frozen=True)
class Choice:
    """One way to treat a layer: its cost, the squared relative error of its output, and what that does to the net's.

    `output` is the predicted squared relative error of the net's output; 0 where the layer stays as it is.
    """

    trial: Trial | None
    cost: int
    error: float = 0.0
    output: float = 0.0


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
) -> Plan:
    """A plan for a trained net that spends a limit by the errors it causes: per layer keep, decompose, and the rank.

    A few ranks of each layer are fitted by `method` to the statistics. What each does to the output is measured by
    running `images` (n, c, h, w) on from there; between them the errors' logarithms are taken to fall in proportion to
    the MACs, and the squared errors of layers to add up. Without images the errors of layers count themselves.
    statistics: by default those of the images. latencies: for a limit on latency. progress: told of every layer.
    Raises ConvsmithError where the limit cannot be met.
    """
    costs = Costs.of(graph, asked, latencies)
    fixed = overridden(graph, asked.overrides, asked.keep)
    by_layer, refusals = _candidates(graph, asked, method)
    if statistics is None:
        if images is None:
            raise ValueError("neither images nor statistics to choose ranks by")
        progress("gathering moments of layers", 0, 1)
        statistics = calibrate(model, images, list(by_layer), seed=seed)
    fit = _Fitting(model, graph, statistics, method, costs, None if images is None else _Effect(model, images))
    options: list[list[Choice]] = []
    for layer, families in by_layer.items():
        progress(f"pricing {layer}", len(options), len(by_layer))
        options.append(fit.choices(families))
    layers = [families[0] for families in by_layer.values()]
    rest = costs.total + costs.change(fixed) - sum(map(costs.layer, layers))
    chosen = choose(options, costs.limit - rest)
    if chosen is None:
        least = rest + sum(min(choice.cost for choice in layer) for layer in options)
        raise costs.unmet(least, CHEAPER if asked.block == "auto" else "choose a cheaper block")
    picked = [(candidate, choice.trial) for candidate, choice in zip(layers, chosen, strict=True)]
    plan = plan_of(graph, picked, refusals, replace(asked, by="errors"), costs, fixed)
    return _with_errors(plan, dict(zip(by_layer, chosen, strict=True)))


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


@dataclass(frozen=True)
class _Fitting:
    """What a layer's choices are worked out from."""

    model: nn.Module
    graph: Graph
    statistics: Mapping[str, Statistics]
    method: str | None
    costs: Costs
    effect: "_Effect | None"

    def choices(self, families: Sequence[Candidate]) -> list[Choice]:
        """All ways to treat a layer: as it is, and by each family's blocks up to twice the budget's share."""
        layer = families[0].layer
        if layer not in self.statistics:
            raise PlanError(f"The statistics lack {layer}; calibrate with this model and all its layers.")
        conv = self.model.get_submodule(layer)
        assert isinstance(conv, nn.Conv2d)
        statistics = fitted_to(self.graph, layer, own_statistics(layer, conv, self.statistics[layer]))
        found = [Choice(None, self.costs.layer(families[0]))]
        for family in families:
            trials = self._worth(family)
            fitted = [(trial, *self._fit(layer, conv, trial.block, statistics)) for trial in _spread(trials)]
            spent = self.costs.trials(family, trials)
            found += [Choice(*each) for each in zip(trials, spent, *_between(trials, fitted), strict=True)]
        return found

    def _worth(self, candidate: Candidate) -> list[Trial]:
        """The trials up to twice the share that the whole net may keep, or the cheapest."""
        costs = self.costs
        most = min(1.0, 2 * costs.limit / costs.total) * costs.layer(candidate)
        told = zip(candidate.trials, costs.trials(candidate, candidate.trials), strict=True)
        return [trial for trial, cost in told if cost <= most] or [*candidate.trials[-1:]]

    def _fit(self, layer: str, conv: nn.Conv2d, block: Block, statistics: Statistics) -> tuple[float, float]:
        """The squared relative errors of a block in a layer's place: of its responses, and of the net's output."""
        with torch.device(conv.weight.device):
            module = block.build(ConvSpec.of(conv)).to(conv.weight.dtype)
        with at(layer):
            carried = block.carry(conv, module, FitRequest(self.method, statistics, draft=True))
        if carried.error is None:
            raise PlanError(
                f"{block} takes over no weights, so that data cannot choose where it costs least; leave --data out."
            )
        here = carried.error**2
        if self.effect is None:
            return here, here
        shift = None if carried.shift is None else carried.shift.view(-1, 1, 1)
        return here, self.effect.on_output(layer, module if shift is None else nn.Sequential(module, _Shifted(shift)))


def _spread(trials: Sequence[Trial]) -> Sequence[Trial]:
    """At most TRIED of them, evenly from the first to the last."""
    if len(trials) <= TRIED:
        return trials
    return [trials[round(i * (len(trials) - 1) / (TRIED - 1))] for i in range(TRIED)]


def _between(trials: Sequence[Trial], fitted: Sequence[tuple[Trial, float, float]]) -> Iterator[list[float]]:
    """Both squared errors of all trials, dearest first, from those of some, the ends among them."""
    macs, *both = zip(*((trial.macs, *errors) for trial, *errors in reversed(fitted)), strict=True)
    for errors in both:
        logs = np.interp([trial.macs for trial in trials], macs, np.log(np.maximum(errors, 1e-12)))
        yield [float(error) for error in np.exp(logs)]


class _Shifted(nn.Module):
    """Adds what a BatchNorm behind would take off its mean."""

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.get_buffer("shift")


class _Effect:
    """Runs of one batch through the net from any layer on; cheapest where layers come in order of execution."""

    def __init__(self, model: nn.Module, images: Pictures) -> None:
        self._batch = images[:BATCH].to(next(model.parameters()))
        self._graph = capture(model, self._batch, batch=len(self._batch))
        self._replay = Replay(model, self._graph)
        self._places = {node.module: at for at, node in enumerate(self._graph.nodes) if node.conv_spec() is not None}
        self._alive, self._at = self._replay.start(self._batch.clone()), 0
        self._answers = self._outcome({})
        self._energies = [_energy(answer) for answer in self._answers]
        if not 0 < sum(self._energies) < inf:
            raise PlanError(
                f"{self._graph.model} answers zeros, NaN or infinity to these images; check its weights and the data."
            )

    def on_output(self, layer: str, block: nn.Module) -> float:
        """The squared relative error of the output with a block in one layer's place, of several outputs the mean."""
        place = self._places[layer]
        if place < self._at:
            self._alive, self._at = self._replay.start(self._batch.clone()), 0
        self._replay.run(self._alive, self._at, place)
        self._at = place
        made = self._outcome({self._graph.nodes[place].name: block})
        missed = [(new - old).square().sum().item() for new, old in zip(made, self._answers, strict=True)]
        errors = [error / energy for error, energy in zip(missed, self._energies, strict=True) if energy]
        return sum(errors) / len(errors)

    def _outcome(self, modules: Mapping[str, nn.Module]) -> list[Tensor]:
        """The outputs, run on from here with `modules` in the place of calls."""
        alive = deepcopy(self._alive)  # calls may write into what they read
        self._replay.run(alive, self._at, len(self._graph.nodes), modules)
        return [alive[name].double() for name in self._graph.outputs]


def _energy(answer: Tensor) -> float:
    """What errors are relative to: how answers to several images differ, or where they do not, what they are."""
    varying = (answer - answer.mean(0)).square().sum().item()
    return varying or answer.square().sum().item()
