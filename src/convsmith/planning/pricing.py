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
from convsmith.calibration.calibrate import BATCH, captured
from convsmith.calibration.fitting import fitted_to, own_statistics
from convsmith.calibration.pictures import Pictures, tensors_of
from convsmith.calibration.sharing import gathered, share
from convsmith.errors import PlanError, at
from convsmith.graph import Graph
from convsmith.graph.replay import Replay
from convsmith.kernels.spec import Convolution, ConvSpec, is_plain
from convsmith.planning.budget import Costs
from convsmith.planning.candidates import Candidate, Trial
from convsmith.planning.ladder import Priced
from convsmith.planning.prices import Price, Prices
from convsmith.structure.units import detour

# Ranks fitted per layer and family, of those up to twice the limit's share: dearer ones are hardly ever chosen.
TRIED = 4
# A block whose squared error here is more than that of one as cheap by this factor is not run on to the output.
CLEARLY = 0.8


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
        assert is_plain(conv)
        statistics = fitted_to(self.graph, layer, own_statistics(layer, conv, self.statistics[layer]))
        found = [Choice(None, self.costs.layer(families[0]))]
        # none where no rank is faster than the layer itself
        offers = [
            Offer([e.what for e in worth], [e.cost for e in worth]) for worth in map(self._worth, families) if worth
        ]
        prices = self._prices(layer, conv, offers, statistics)
        for offer in offers:
            found += offer.choices(prices)
        return found

    def _prices(
        self, layer: str, conv: Convolution, offers: Sequence["Offer"], statistics: Statistics
    ) -> dict[str, tuple[float, float]]:
        """By block both squared errors of what is fitted; the output's only where no cheaper block is better here."""
        told = {str(trial.block): (trial.block, cost) for offer in offers for trial, cost in offer.spread()}
        cost = {name: each for name, (_, each) in told.items()}
        kept = {name: self.prices.known(layer, name) for name in told}
        rank, processes = share()
        missing = [name for name, price in kept.items() if price is None]
        made = {name: self._fit(layer, conv, told[name][0], statistics) for name in missing[rank::processes]}
        here = {name: price[0] for name, price in kept.items() if price}
        for part in gathered({name: error for name, (error, _) in made.items()}):
            here |= part
        own: dict[str, Price] = {}
        for name, (error, module) in made.items():
            beaten = any(cost[other] <= cost[name] and here[other] < CLEARLY * error for other in here)
            own[name] = error, None if beaten else self._output(layer, module, error)
            if processes == 1:  # as they come; several processes keep a layer's when all have come
                self.prices.keep(layer, name, own[name])
        for everyones in gathered(own) if processes > 1 else ():
            for name, price in everyones.items():
                self.prices.keep(layer, name, price)
        found = {name: self.prices.known(layer, name) for name in told}
        return {name: (price[0], price[1]) for name, price in found.items() if price and price[1] is not None}

    def _worth(self, candidate: Candidate) -> list[Priced[Trial]]:
        """The trials up to twice the share that the whole net may keep, or the cheapest.

        None stays that a dearer one in MACs, which errs less, beats in time.
        """
        costs = self.costs
        falling = costs.falling(candidate)
        most = min(1.0, 2 * costs.limit / costs.total) * costs.layer(candidate)
        return [each for each in falling if each.cost <= most] or [*falling[-1:]]

    def _output(self, layer: str, module: nn.Module, here: float) -> float:
        return here if self.effect is None else self.effect.on_output(layer, module)

    def _fit(self, layer: str, conv: Convolution, block: Block, statistics: Statistics) -> tuple[float, nn.Module]:
        """A block in a layer's place, and the squared relative error of its responses."""
        with torch.device(conv.weight.device):
            module = block.build(ConvSpec.of(conv)).to(conv.weight.dtype)
        with at(layer):
            carried = block.carry(conv, module, FitRequest(self.method, statistics, draft=True))
        if carried.error is None:
            raise PlanError(
                f"{block} starts untrained, so images cannot tell where it costs least accuracy; leave --data out."
            )
        shift = None if carried.shift is None else carried.shift.view(-1, *(1 for _ in conv.kernel_size))
        return carried.error**2, module if shift is None else nn.Sequential(module, Shifted(shift))


@dataclass(frozen=True)
class Offer:
    """Blocks of one family that a layer may become, dearest first, and what they cost."""

    trials: Sequence[Trial]
    costs: Sequence[int]

    def spread(self) -> list[tuple[Trial, int]]:
        """At most TRIED of them, evenly from the first to the last."""
        told = list(zip(self.trials, self.costs, strict=True))
        if len(told) <= TRIED:
            return told
        return [told[round(i * (len(told) - 1) / (TRIED - 1))] for i in range(TRIED)]

    def choices(self, prices: Mapping[str, tuple[float, float]]) -> Iterator[Choice]:
        """Those from the cheapest to the dearest priced, with errors between those of the priced."""
        priced = [(trial.macs, *prices[str(trial.block)]) for trial, _ in self.spread() if str(trial.block) in prices]
        if not priced:
            return
        macs, *both = zip(*sorted(priced), strict=True)
        for trial, cost in zip(self.trials, self.costs, strict=True):
            if macs[0] <= trial.macs <= macs[-1]:
                here, output = (np.interp(trial.macs, macs, np.log(np.maximum(errors, 1e-12))) for errors in both)
                yield Choice(trial, cost, float(np.exp(here)), float(np.exp(output)))


class Shifted(nn.Module):
    """Adds what a BatchNorm behind would take off its mean."""

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        """Add it."""
        return x + self.get_buffer("shift")


class Effect:
    """Runs of one batch through the net from any layer on; cheapest where layers come in order of execution."""

    def __init__(self, model: nn.Module, images: Pictures) -> None:
        self._batch = images[:BATCH].to(next(model.parameters()))
        self._graph = captured(model, self._batch, len(self._batch))
        self._model, self._replay = model, Replay(model, self._graph)
        self._places = {node.module: at for at, node in enumerate(self._graph.nodes) if node.conv_spec() is not None}
        self._alive, self._at = self._replay.start(*tensors_of(self._batch.clone())), 0
        self._answers = self._outcome({})
        self._energies = [energy(answer) for answer in self._answers]
        if not 0 < sum(self._energies) < inf:
            raise PlanError(
                f"{self._graph.model} answers zeros, NaN or infinity to these images; check its weights and the data."
            )

    def on_output(self, layer: str, block: nn.Module) -> float:
        """The squared relative error of the output with a block in one layer's place, of several outputs the mean."""
        return self.of({layer: block})

    def of(self, modules: Mapping[str, nn.Module]) -> float:
        """The same with modules in the places of several layers."""
        place = min(self._places[layer] for layer in modules)
        if place < self._at:
            self._alive, self._at = self._replay.start(*tensors_of(self._batch.clone())), 0
        self._replay.run(self._alive, self._at, place)
        self._at = place
        calls = {self._graph.nodes[self._places[layer]].name: module for layer, module in modules.items()}
        return self._missed(self._outcome(calls))

    def without(self, units: Sequence[tuple[str, ...]], changed: nn.Module | None = None) -> float:
        """The same with units, modules with one tensor in and one of the same shape out, left out.

        changed: a copy of the net with weights of its own, to be run instead.
        """
        detours = [detour(self._graph, unit) for unit in units]
        replay = Replay(self._model if changed is None else changed, self._graph, detours)
        alive = replay.start(*tensors_of(self._batch.clone()))
        replay.run(alive, 0, len(self._graph.nodes))
        return self._missed([alive[name].double() for name in self._graph.ends])

    def _missed(self, made: Sequence[Tensor]) -> float:
        """The squared relative error of outputs."""
        missed = [(new - old).square().sum().item() for new, old in zip(made, self._answers, strict=True)]
        errors = [error / energy for error, energy in zip(missed, self._energies, strict=True) if energy]
        return sum(errors) / len(errors)

    def _outcome(self, modules: Mapping[str, nn.Module]) -> list[Tensor]:
        """The outputs, run on from here with `modules` in the place of calls."""
        alive = deepcopy(self._alive)  # calls may write into what they read
        self._replay.run(alive, self._at, len(self._graph.nodes), modules)
        return [alive[name].double() for name in self._graph.ends]


def energy(answer: Tensor) -> float:
    """What errors are relative to: how answers to several images differ, or where they do not, what they are."""
    varying = (answer - answer.mean(0)).square().sum().item()
    return varying or answer.square().sum().item()
