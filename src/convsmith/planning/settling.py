"""Plans for a target, held to what is measured there: the new net is run beside the old one, and planned again."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from convsmith.errors import BudgetError, PlanError
from convsmith.graph import Graph
from convsmith.latency.clock import Clock
from convsmith.latency.in_target import TargetLatencies
from convsmith.latency.latencies import Latencies
from convsmith.latency.measure import measure_latency
from convsmith.latency.nets import NetTimer
from convsmith.plan import Plan, Request
from convsmith.planning.budget import Costs
from convsmith.progress import Progress, silent
from convsmith.rewriting.apply import rewrite
from convsmith.target import Target

TRIES = 4
TIGHTER = 0.99  # of what is allowed is planned for after a miss, so that the next one is rarer

Make = Callable[[Costs], Plan]
Settle = Callable[[Make, Costs], Plan]


def as_planned(make: Make, costs: Costs) -> Plan:
    """The plan within the limit, by what was predicted."""
    return make(costs)


@dataclass(frozen=True)
class Measured:
    """Holds plans of one net to what they take in its target; weights are random there, which times do not tell."""

    model: nn.Module
    timer: NetTimer
    progress: Progress = silent

    def settle(self, make: Make, costs: Costs) -> Plan:
        """The first plan that keeps the limit when it is measured, each planned for what the last one missed by.

        Under a limit on MACs it must not be slower than the net. Raises BudgetError where none does.
        """
        allowed = 1.0 if costs.latencies is None else min(1.0, costs.limit / costs.total)
        tight, plan = costs, self.timed(make(costs))
        for _ in range(TRIES - 1):
            if _share(plan) <= allowed or costs.latencies is None:
                break
            tight = replace(tight, limit=tight.limit * TIGHTER * allowed / _share(plan))
            try:
                plan = self.timed(make(tight))
            except BudgetError:
                break
        return self.held(plan, allowed)

    def timed(self, plan: Plan) -> Plan:
        """The plan with the milliseconds of the net and of the planned one, in turns."""
        self.progress(f"timing the new net in {self.timer.clock.target}", 0, 1)
        before, after = self.timer.beside(rewrite(self.model, plan, method="none").model)
        return replace(plan, measured_ms=(1e3 * before, 1e3 * after if plan.edits else 1e3 * before))

    def held(self, plan: Plan, allowed: float = 1.0) -> Plan:
        """A timed plan; raises BudgetError where it takes more than is allowed."""
        if _share(plan) > allowed:
            raise BudgetError(
                f"{plan.model}: the plan takes {_share(plan):.3f} of the net's time in {self.timer.clock.target} when "
                f"measured, more than the {allowed:.3f} allowed; allow more, or choose another block or target."
            )
        return plan


def aim_of(target: Target | str | None, model: nn.Module | None, max_latency: object) -> Target | None:
    """The target of a limit on latency; raises PlanError where there is neither limit nor model."""
    if target is not None and (model is None or max_latency is None):
        raise PlanError("organize: a target is where a limit on latency is kept; give max_latency and the model too.")
    return None if target is None else Target.parse(target)


def latencies_for(
    model: nn.Module | None, graph: Graph, target: Target | None, file: Path | None, progress: Progress
) -> Latencies:
    """What a limit on latency is kept by; raises PlanError where there is no model to measure."""
    if model is None:
        raise PlanError("organize: a limit on latency needs latencies; give those of cs.measure_latency(model, graph).")
    return measure_latency(model, graph, target=target, file=file, progress=progress)


def held_in(
    target: Target | None, model: nn.Module | None, graph: Graph, latencies: Latencies | None, plan: Plan,
    progress: Progress, allowed: float | None,
) -> Plan:  # fmt: skip
    """A plan of stages, timed beside the net where there is a target; raises BudgetError where it takes too long."""
    if target is None or model is None:
        return plan
    judge = measured_in(target, model, graph, latencies, None, progress)
    return judge.held(judge.timed(replace(plan, asked=Request("none", target=target))), allowed or 1.0)


def measured_in(
    target: Target, model: nn.Module, graph: Graph, latencies: Latencies | None, file: Path | None, progress: Progress
) -> Measured:
    """What holds plans of a net to its times in a target, with the net's run of `latencies` where these are of it."""
    if isinstance(latencies, TargetLatencies):
        return Measured(model, latencies.net, progress)
    return Measured(model, NetTimer(model, graph, Clock(target, file=file)), progress)


def _share(plan: Plan) -> float:
    before, after = plan.measured_ms or (1.0, 0.0)
    return after / before
