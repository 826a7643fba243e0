"""What each way to treat a layer costs and loses: blocks fitted in its place, and their effect on the net's output."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from torch import Tensor, nn

from convsmith.algebra import FitRequest
from convsmith.algebra.second_moments import Statistics
from convsmith.blocks import Block
from convsmith.calibration.calibrate import BATCH
from convsmith.calibration.fitting import fitted_to, own_statistics
from convsmith.calibration.pictures import Pictures
from convsmith.errors import PlanError, at
from convsmith.graph import Graph
from convsmith.graph.capture import capture
from convsmith.graph.replay import Replay
from convsmith.kernels.spec import ConvSpec
from convsmith.planning.budget import Costs
from convsmith.planning.candidates import Candidate, Trial
from convsmith.planning.ladder import Priced
from convsmith.planning.prices import Price, Prices

# Ranks fitted per layer and family, of those up to twice the limit's share: dearer ones are hardly ever chosen.
TRIED = 5


@dataclass(frozen=True)
class Choice:
    """One way to treat a layer: its cost, the squared relative error of its output, and what that does to the net's.

    `output` is the predicted squared relative error of the net's output; 0 where the layer stays as it is.
    """

    trial: Trial | None
    cost: int
    error: float = 0.0
    output: float = 0.0


@dataclass(frozen=True)
class Pricing:
    """What a layer's choices are worked out from."""

    model: nn.Module
    graph: Graph
    statistics: Mapping[str, Statistics]
    method: str | None
    costs: Costs
    effect: "Effect | None"
    prices: Prices

    def choices(self, families: Sequence[Candidate]) -> list[Choice]:
        """All ways to treat a layer: as it is, and by each family's blocks up to twice the budget's share."""
        layer = families[0].layer
        if layer not in self.statistics:
            raise PlanError(f"The statistics lack {layer}; calibrate with this model and all its layers.")
        conv = self.model.get_submodule(layer)
        assert isinstance(conv, nn.Conv2d)
        statistics = fitted_to(self.graph, layer, own_statistics(layer, conv, self.statistics[layer]))
        found = [Choice(None, self.costs.layer(families[0]))]
        for priced in filter(None, map(self._worth, families)):  # none where no rank is faster than the layer itself
            trials, spent = [each.what for each in priced], [each.cost for each in priced]
            fitted = [(trial, *self._price(layer, conv, trial.block, statistics)) for trial in _spread(trials)]
            found += [Choice(*each) for each in zip(trials, spent, *_between(trials, fitted), strict=True)]
        return found

    def _worth(self, candidate: Candidate) -> list[Priced[Trial]]:
        """The trials up to twice the share that the whole net may keep, or the cheapest.

        None stays that a dearer one in MACs, which errs less, beats in time.
        """
        costs = self.costs
        falling = costs.falling(candidate)
        most = min(1.0, 2 * costs.limit / costs.total) * costs.layer(candidate)
        return [each for each in falling if each.cost <= most] or [*falling[-1:]]

    def _price(self, layer: str, conv: nn.Conv2d, block: Block, statistics: Statistics) -> Price:
        return self.prices.of(layer, str(block), lambda: self._fit(layer, conv, block, statistics))

    def _fit(self, layer: str, conv: nn.Conv2d, block: Block, statistics: Statistics) -> Price:
        """The squared relative errors of a block in a layer's place: of its responses, and of the net's output."""
        with torch.device(conv.weight.device):
            module = block.build(ConvSpec.of(conv)).to(conv.weight.dtype)
        with at(layer):
            carried = block.carry(conv, module, FitRequest(self.method, statistics, draft=True))
        if carried.error is None:
            raise PlanError(
                f"{block} starts untrained, so images cannot tell where it costs least accuracy; leave --data out."
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


class Effect:
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
        return [alive[name].double() for name in self._graph.ends]


def _energy(answer: Tensor) -> float:
    """What errors are relative to: how answers to several images differ, or where they do not, what they are."""
    varying = (answer - answer.mean(0)).square().sum().item()
    return varying or answer.square().sum().item()
