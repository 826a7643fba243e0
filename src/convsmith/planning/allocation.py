"""What to do within a limit once everything has its price: the least predicted error of the net's output."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from convsmith.graph import Graph
from convsmith.plan import Plan, Refusal, Request
from convsmith.planning.budget import Costs
from convsmith.planning.candidates import Candidate, Trial
from convsmith.planning.joint import Joint, State, choose_jointly
from convsmith.planning.levers import Levers, plan_of_levers
from convsmith.planning.pricing import Choice

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


@dataclass(frozen=True)
class Priced:
    """What a net's layers, channels and units may become, with prices; plans for any limit are chosen of it.

    Attributes:
        graph: The captured model.
        costs: What limits count.
        levers: All that can be done.
        refusals: What stays, and why.
        fixed: What was asked for single layers.
    """

    graph: Graph
    costs: Costs
    levers: Levers
    refusals: Sequence[Refusal]
    fixed: Sequence[tuple[Candidate, Trial]]

    @cached_property
    def joint(self) -> Joint:
        """All levers as one decision."""
        return self.levers.joint(self.graph, self.costs)

    @property
    def rest(self) -> float:
        """What costs what it costs, whatever is decided."""
        return self.costs.total + self.costs.change(self.fixed) - self.joint.total(self.joint.start)

    @property
    def least(self) -> float:
        """What the cheapest plan costs."""
        return self.rest + self.joint.total(self.joint.cheapest)

    def plan(self, asked: Request) -> Plan:
        """The plan of the least error within the limit that is asked for; raises ConvsmithError where none keeps it."""
        return self.within(asked, Costs.of(self.graph, asked, self.costs.latencies))

    def within(self, asked: Request, costs: Costs) -> Plan:
        """The same within a limit of its own."""
        return self.plan_of(self.chosen(asked, costs), asked, costs)

    def plan_of(self, state: State, asked: Request, costs: Costs) -> Plan:
        """The plan that treats each item of `joint` in one of its ways."""
        chosen = [item.ways[way].what for item, way in zip(self.joint.items, state, strict=True)]
        by_errors = replace(asked, by="errors")
        return plan_of_levers(self.graph, self.levers, chosen, self.refusals, by_errors, costs, self.fixed)

    def chosen(self, asked: Request, costs: Costs) -> State:
        """What to do with each item, with the least sum of errors; raises ConvsmithError where nothing keeps the limit.

        Layers alone are chosen exactly. With groups and units the better of that and of one choice for all is taken.
        """
        alone = self._layers_alone(costs.limit)
        jointly = None
        if self.levers.groups or self.levers.units:
            jointly = choose_jointly(self.joint, costs.limit - self.rest)
        found = [state for state in (alone, jointly) if state is not None]
        if not found:
            raise costs.unmet(self.least, CHEAPER if asked.block == "auto" else "choose a cheaper block")
        return min(found, key=self.joint.error)

    def _layers_alone(self, limit: float) -> State | None:
        items = self.joint.items[: len(self.levers.layers)]
        rest = self.costs.total + self.costs.change(self.fixed)
        rest -= sum(self.costs.layer(candidate) for candidate, _ in self.levers.layers)
        found = choose([[way.what for way in item.ways] for item in items], limit - rest)
        if found is None:
            return None
        ways = [[id(way.what) for way in item.ways].index(id(one)) for item, one in zip(items, found, strict=True)]
        return (*ways, *(0,) * (len(self.joint.items) - len(items)))
