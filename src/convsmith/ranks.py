"""Which layers to decompose, and at what rank, under a budget: the least predicted error of the net's output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from convsmith.blocks import Block, parse_block
from convsmith.calibrate import BATCH, calibrate
from convsmith.candidates import Candidate, Trial, consider
from convsmith.capture import capture
from convsmith.conv import ConvSpec
from convsmith.costs import Costs
from convsmith.decompose import plan_of
from convsmith.errors import ConvsmithError
from convsmith.graph import Graph
from convsmith.latency import Latencies, measure_latency
from convsmith.plan import Budget, Plan, Replace
from convsmith.replay import Replay
from convsmith.statistics import Statistics

# With data the separable form competes with the three-way form, which contains it and costs more per rank.
FAMILIES = ("dw-pw", "cp:r=8")
# Ranks tried per layer and family: each is fitted, and one at twice the budget's share is hardly ever chosen.
TRIED = 5
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


def reallocate(
    model: nn.Module,
    graph: Graph,
    budget: Budget,
    images: Tensor | None,
    method: str | None,
    statistics: Mapping[str, Statistics] | None = None,
    seed: int = 0,
    latencies: Latencies | None = None,
) -> Plan:
    """A plan for a trained net that spends a budget by the errors it causes: per layer keep, decompose, and the rank.

    A choice's error at its layer is that of the fit by `method` to the statistics. What a layer's error does to the
    output is measured once per layer, by running `images` (n, c, h, w) on from its middle choice, and taken to grow in
    proportion: the squared errors of layers add up. Without images every layer's error counts alike.
    statistics: by default those of the images. latencies: for a budget of latency, measured where they are not given.
    Raises ConvsmithError where the budget cannot be met.
    """
    if budget.max_latency is not None and latencies is None:
        latencies = measure_latency(model, graph)
    costs = Costs.of(graph, budget, latencies)
    names = FAMILIES if budget.block == "auto" else (budget.block,)
    families = [consider(graph, [parse_block(name)], forced=True, ranked=True, keep=budget.keep) for name in names]
    by_layer: dict[str, list[Trial]] = {}
    first, refusals = families[0]
    for candidates, _ in families:
        for candidate in candidates:
            by_layer.setdefault(candidate.layer, []).extend(_spread(candidate, costs))
    if statistics is None:
        if images is None:
            raise ValueError("neither images nor statistics to choose ranks by")
        statistics = calibrate(model, images, [candidate.layer for candidate in first], seed=seed)
    effect = None if images is None else _Effect.of(model, images)
    options = [
        _choices(model, candidate, by_layer[candidate.layer], statistics, effect, method, costs) for candidate in first
    ]
    fixed = costs.total - sum(map(costs.layer, first))
    chosen = choose(options, costs.limit - fixed)
    if chosen is None:
        raise costs.unmet(fixed + sum(min(choice.cost for choice in layer) for layer in options))
    picked = [(candidate, choice.trial) for candidate, choice in zip(first, chosen, strict=True)]
    new = plan_of(graph, picked, refusals, auto=False, costs=costs)
    reasons = {
        candidate.layer: f"of the error that the output can bear it costs {choice.output:.2g} "
        f"(its own responses: {choice.error**0.5:.2g})"
        for candidate, choice in zip(first, chosen, strict=True)
    }
    edits = tuple(replace(e, reason=reasons[e.layer]) if isinstance(e, Replace) else e for e in new.edits)
    return replace(new, edits=edits)


def _spread(candidate: Candidate, costs: Costs) -> list[Trial]:
    """At most TRIED of the trials, evenly from the cheapest to twice the share that the whole net may keep."""
    most = min(1.0, 2 * costs.limit / costs.total) * costs.layer(candidate)
    told = zip(candidate.trials, costs.trials(candidate, candidate.trials), strict=True)
    worth = [trial for trial, cost in told if cost <= most]
    trials = worth or [*candidate.trials[-1:]]
    if len(trials) <= TRIED:
        return trials
    return [trials[round(i * (len(trials) - 1) / (TRIED - 1))] for i in range(TRIED)]


def _choices(
    model: nn.Module,
    candidate: Candidate,
    trials: Sequence[Trial],
    statistics: Mapping[str, Statistics],
    effect: "_Effect | None",
    method: str | None,
    costs: Costs,
) -> list[Choice]:
    if candidate.layer not in statistics:
        raise ConvsmithError(f"The statistics lack {candidate.layer}; calibrate with this model and all its layers.")
    conv = model.get_submodule(candidate.layer)
    assert isinstance(conv, nn.Conv2d)
    fits = [(trial, *_fit(conv, trial.block, statistics[candidate.layer], method)) for trial in trials]
    middle = sorted(fits, key=lambda fit: fit[1])[len(fits) // 2]
    rate = 1.0 if effect is None else effect.on_output(candidate.layer, middle[2]) / max(middle[1], 1e-12)
    spent = costs.trials(candidate, trials)
    changed = [Choice(t, cost, error, rate * error) for (t, error, _), cost in zip(fits, spent, strict=True)]
    return [Choice(None, costs.layer(candidate)), *changed]


def _fit(conv: nn.Conv2d, block: Block, statistics: Statistics, method: str | None) -> tuple[float, nn.Module]:
    """The squared relative error of a block, and the block."""
    with torch.device(conv.weight.device):
        module = block.build(ConvSpec.of(conv)).to(conv.weight.dtype)
    carried = block.carry(conv, module, method, statistics)
    if carried.error is None:
        raise ConvsmithError(
            f"{block} takes over no weights, so that data cannot choose where it costs least; leave --data out."
        )
    shift = None if carried.shift is None else carried.shift.view(-1, 1, 1)
    return carried.error**2, module if shift is None else nn.Sequential(module, _Shifted(shift))


class _Shifted(nn.Module):
    """Adds what a BatchNorm behind would take off its mean."""

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.get_buffer("shift")


@dataclass(frozen=True)
class _Effect:
    """Runs of one batch through the net from any layer on."""

    replay: Replay
    batch: Tensor
    answer: Tensor

    @classmethod
    def of(cls, model: nn.Module, images: Tensor) -> "_Effect":
        batch = images[:BATCH].to(next(model.parameters()))
        replay = Replay(model, capture(model, batch, batch=len(batch)))
        return cls(replay, batch, _run(replay, batch, {}))

    def on_output(self, layer: str, block: nn.Module) -> float:
        """The squared relative error of the output with a block in one layer's place."""
        name = next(node.name for node in self.replay.graph.nodes if node.module == layer)
        missed = _run(self.replay, self.batch, {name: block}) - self.answer
        varying = self.answer - self.answer.mean(0)
        return (missed.square().sum() / varying.square().sum()).item()


def _run(replay: Replay, batch: Tensor, modules: Mapping[str, nn.Module]) -> Tensor:
    alive = replay.start(batch.clone())
    replay.run(alive, 0, len(replay.graph.nodes), modules)
    answer: Tensor = alive[replay.graph.outputs[0]]
    return answer.double()
