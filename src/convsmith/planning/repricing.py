"""Plans held to what they do: each is carried out in short and judged at the output, and prices are told by that."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from math import exp, log

import torch
from torch import Tensor, nn

from convsmith.calibration.pictures import Pictures, arguments
from convsmith.errors import BudgetError
from convsmith.graph.answers import answered
from convsmith.plan import Plan, Replace, Request
from convsmith.planning.allocation import Priced
from convsmith.planning.budget import Costs
from convsmith.planning.joint import State
from convsmith.planning.prices import Prices
from convsmith.planning.pricing import energy
from convsmith.progress import Progress, silent
from convsmith.rewriting.apply import draft

# With fewer images none are left to judge by.
LEAST = 32
# Images that plans are carried out on, of three quarters, and those that judge.
FITTED, JUDGING = 192, 128
# Times that prices are told anew.
ROUNDS = 3
# Of each kind that are not chosen, so many of the cheapest are priced anew, too.
NEXT = 2
# A plan's error differs by a few hundredths from fit to fit: no price is trusted to change by more than this factor.
MOST = 4.0


class Judge:
    """What plans lose at the output of a net, on images that they were not fitted to.

    images: three in four are fitted to, the others judge. most: plans that are judged in all, of choices a few more.
    prices: where what was judged is kept.
    """

    def __init__(
        self, model: nn.Module, images: Pictures, method: str | None, seed: int, most: int, prices: Prices,
        progress: Progress = silent,
    ) -> None:  # fmt: skip
        held = max(1, min(JUDGING, len(images) // 4))
        self._model, self._method, self._seed, self._prices = model, method, seed, prices
        self._fitted = images[: max(1, min(FITTED, len(images) - held))]
        self._judging = images[len(images) - held :].to(next(model.parameters()))
        self._wanted = self._answers(model)
        self._progress, self._most, self._seen = progress, most, set[str]()

    @property
    def full(self) -> bool:
        """Whether as many plans were judged as may be; where that is one, choices are compared, and no more."""
        return self._most == 1 or len(self._seen) >= self._most

    def error(self, plan: Plan) -> float:
        """The squared relative error of the net's output once a plan is carried out in short."""

        def judged() -> tuple[float, float]:
            done = len(self._seen) - 1
            self._progress("judging plans", done, max(self._most, done + 1))
            made = self._answers(draft(self._model, plan, self._fitted, self._method, self._seed))
            missed = [(new - old).square().sum().item() for new, old in zip(made, self._wanted, strict=True)]
            errors = [
                error / spread for error, old in zip(missed, self._wanted, strict=True) if (spread := energy(old))
            ]
            return (error := sum(errors) / len(errors)), error

        name = _named(plan)
        self._seen.add(name)  # those of the file count too, so that a call that goes on comes to the same plan
        return self._prices.output("plan", name, judged)

    def _answers(self, model: nn.Module) -> list[Tensor]:
        args, named = arguments(self._judging.clone())
        with torch.no_grad():
            answers = answered(model(*args, **named))
        return [answer.double() for answer in answers if answer.is_floating_point()]


def _named(plan: Plan) -> str:
    """A plan's edits in few letters, whatever they are predicted to lose."""
    blocks = {edit.name: edit.block for edit in plan.edits if isinstance(edit, Replace)}
    told = sorted((edit.kind, edit.name, blocks.get(edit.name, ""), edit.macs[1]) for edit in plan.edits)
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Judged:
    """Plans within one limit, the best by what they do: of layers alone, and with channels and units.

    Attributes:
        found: What can be done, with prices.
        judge: Tells what plans lose.
        asked: What the plan is for.
    """

    found: Priced
    judge: Judge
    asked: Request

    def within(self, costs: Costs) -> Plan:
        """The best plan within a limit; no worse, when it is judged, than those of fewer levers.

        Prices are told anew around the best: each scaled so that it says what the chosen way costs where all others are
        as chosen. Of these the next choice is made, as long as it is judged better and not too many have been judged.
        Raises ConvsmithError where nothing keeps the limit.
        """
        found, best = self.found, self._best(self.found, costs)
        for _ in range(ROUNDS):
            if self.judge.full:
                break
            found = replace(found, levers=found.levers.scaled(self._ratios(found, best, costs)))
            state = self._best(found, costs, best)
            if state == best:
                break
            best = state
        return found.plan_of(best, self.asked, costs)

    def _best(self, found: Priced, costs: Costs, *more: State) -> State:
        states = dict.fromkeys([*more, *_choices(found, self.asked, costs)])
        if len(states) == 1 and self.judge.full:  # nothing to compare it with
            return next(iter(states))
        return min(states, key=lambda state: self._error(found, state, costs))

    def _error(self, found: Priced, state: State, costs: Costs) -> float:
        return self.judge.error(found.plan_of(state, self.asked, costs))

    def _ratios(self, found: Priced, state: State, costs: Costs) -> list[float]:
        """By item what its price is to be multiplied with; those not judged as the others of their kind."""
        here = self._error(found, state, costs)
        ratios: dict[int, float] = {}
        for item in _worth_judging(found, state):
            if self.judge.full:
                break
            other = found.joint.moved(state, item, 0 if state[item] else 1)
            change = self._error(found, other, costs) - here
            own = found.joint.items[item].ways[state[item] or 1].error
            # What the move leaves undone besides, as two cannot be together, is taken at its price.
            lost = -change if state[item] else change + own - found.joint.change(state, other)[0]
            ratios[item] = min(MOST, max(1 / MOST, lost / max(own, 1e-12)))
        kinds = _kinds(found)
        usual = [_mean(ratios[item] for item in kind if item in ratios) for kind in kinds]
        return [ratios.get(item, mean) for kind, mean in zip(kinds, usual, strict=True) for item in kind]


def _choices(found: Priced, asked: Request, costs: Costs) -> Iterator[State]:
    """What is chosen of all that can be done, and of layers alone, with channels, and with units, where that can be.

    Where all are free and layers alone are chosen, they are what would be chosen of fewer, too.
    """
    first, levers = found.chosen(asked, costs), found.levers
    yield first
    layers, groups, units = map(len, _kinds(found))
    if not any(first[layers:]):
        return
    for kinds in (("groups", "units"), ("groups",), ("units",)):
        fewer = replace(levers, **dict.fromkeys(kinds, ()))
        left = len(fewer.groups)
        with suppress(BudgetError):
            state = replace(found, levers=fewer).chosen(asked, costs)
            widths = state[layers : layers + left] or (0,) * groups
            yield (*state[:layers], *widths, *(state[layers + left :] or (0,) * units))


def _kinds(found: Priced) -> list[range]:
    """The items that are layers, groups and units."""
    counts = [len(each) for each in (found.levers.layers, found.levers.groups, found.levers.units)]
    ends = [0, *accumulate(counts)]
    return [range(*pair) for pair in pairwise(ends)]


def _worth_judging(found: Priced, state: State) -> Iterator[int]:
    """Items in the order in which their prices are told anew: units, groups, layers, of each those chosen.

    Those that cost most come first. Of units and groups that are not chosen the cheapest follow.
    """
    items = found.joint.items
    layers, *others = _kinds(found)
    for kind in (*reversed(others), layers):
        chosen = [item for item in kind if state[item]]
        yield from sorted(chosen, key=lambda item: -items[item].ways[state[item]].error)
        rest = sorted((item for item in kind if not state[item]), key=lambda item: items[item].ways[1].error)
        yield from rest[:NEXT] if kind != layers else ()


def _mean(ratios: Iterable[float]) -> float:
    """Their geometric mean; 1 of none."""
    logs = [log(ratio) for ratio in ratios]
    return exp(sum(logs) / len(logs)) if logs else 1.0
