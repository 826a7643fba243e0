"""The organizer's problem: which units stages may have, what each choice gains and costs, and the plan of one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import sqrt
from typing import Any, get_args

from convsmith.errors import PlanError
from convsmith.graph import Graph
from convsmith.graph.call_record import call_record
from convsmith.latency.latencies import Latencies
from convsmith.plan import Plan, Refusal, Remove, Repeat, Totals
from convsmith.planning.depth import Losses, measure_losses
from convsmith.planning.divisions import Choice, Objective, Option, Rank, divide
from convsmith.planning.pricing import Effect
from convsmith.progress import Progress
from convsmith.score.growth import published_growth, value
from convsmith.score.records import Scores
from convsmith.structure.stages import StageNodes, effective_kernel, find_stages
from convsmith.structure.starts import identity_start
from convsmith.structure.units import Unit, find_units
from convsmith.structure.widening import widening

LEAST = 1e-12  # what all units count at least, where none counts anything


@dataclass(frozen=True)
class StageProblem:
    """How many units each stage should have: what may move, and what a choice is worth.

    Attributes:
        graph: The net.
        scores: Its scores, whose alpha and clamp gains are counted with.
        stages: Its stages.
        units: The units of each stage, in order.
        refusals: Units that stay where they are, and why.
        latencies: Of its modules, where they were measured.
        by: What to have most of.
        losses: Of a trained net, by stage, what the output loses without units.
        effect: Measures what it loses without several.
    """

    graph: Graph
    scores: Scores
    stages: tuple[StageNodes, ...]
    units: list[list[Unit]]
    refusals: list[Refusal]
    latencies: Latencies | None
    by: Objective
    losses: tuple[Losses, ...] = ()
    effect: Effect | None = None

    def trained(self, effect: Effect, progress: Progress) -> "StageProblem":
        """The same for a net whose units count what the output loses without them."""
        return replace(self, losses=tuple(measure_losses(effect, self.units, progress)), effect=effect)

    @classmethod
    def of(
        cls, graph: Graph, scores: Scores, latencies: Latencies | None = None, by: Objective = "gain"
    ) -> "StageProblem":
        """Find stages and units of a net; raises ConvsmithError where it has no stage, or for an unknown `by`."""
        if by not in get_args(Objective):
            raise PlanError(f"organize: unknown objective {by!r}; choose gain or value.")
        stages = find_stages(graph, graph.reaches())
        if not stages.stages:
            raise PlanError(f"{graph.model} has no stage to organize: no spatial convolution was found.")
        units, refusals = find_units(graph, stages)
        return cls(graph, scores, stages.stages, units, refusals, latencies, by)

    @property
    def base(self) -> Totals:
        """The net as it is."""
        options = [self._option(i, len(units)) for i, units in enumerate(self.units)]
        gain, worth = (sum(getattr(option, name) for option in options) for name in get_args(Objective))
        return Totals(tuple(map(len, self.units)), gain, self.graph.params, self.graph.macs, worth)

    @property
    def blocks(self) -> int:
        """Units in all."""
        return sum(map(len, self.units))

    @property
    def rank(self) -> Rank:
        """What choices are ordered by: for a trained net its worth, else gain or value."""
        return partial(Choice.rank, by="worth" if self.losses else self.by)

    def choices(self, blocks: int | None, allowed: Mapping[str, float | None]) -> list[Choice]:
        """The choices that keep the limits and can be best, of `blocks` units; of a trained net of so many at most."""
        options = [self._options(i, blocks or self.blocks) for i in range(len(self.stages))]
        total = self.blocks if blocks is None else blocks
        least, most = (sum(end(o.blocks for o in stage) for stage in options) for end in (min, max))
        if not least <= total <= most:
            bound = f"at least {least}" if total < least else f"at most {most}"
            raise PlanError(f"{self.graph.model}: {total} units are not possible; choose {bound}.")
        base = {
            "macs": self.graph.macs,
            "params": self.graph.params,
            "seconds": self.latencies.total if self.latencies else 0.0,
        }
        limits = {name: limit for name, limit in allowed.items() if limit is not None}

        def fits(choice: Choice) -> bool:
            return all(base[name] + getattr(choice, name) <= limit * base[name] for name, limit in limits.items())

        def measures(choice: Choice) -> tuple[float, ...]:
            return (-self.rank(choice)[0], *(getattr(choice, name) for name in limits))

        divisions = divide(options, total, measures, self.rank)
        totals = range(total + 1) if self.losses and blocks is None else (total,)
        return [choice for each in totals for choice in divisions.get(each, []) if fits(choice)]

    def _options(self, stage: int, total: int) -> list[Option]:
        """From the fewest units the stage can have to as many as there are in all."""
        units = self.units[stage]
        if len(self._convs(stage)) != len(self.stages[stage].counted):
            return [self._option(stage, len(units))]  # convolutions that no unit holds
        fewest = max(len(units) - len(self._uniform(stage)), min(1, len(units)))
        most = len(units) if self._copied(stage) is None else max(total, len(units))
        return [self._option(stage, count) for count in range(fewest, most + 1)]

    def _option(self, stage: int, count: int) -> Option:
        added, removed = self._change(stage, count)
        gain, worth = self._gains(stage, added, removed)
        difference = [(unit, 1) for unit in added] + [(unit, -1) for unit in removed]
        return Option(
            count, gain,
            sum(sign * unit.params for unit, sign in difference),
            sum(sign * unit.macs for unit, sign in difference),
            sum(sign * self._seconds(unit) for unit, sign in difference) if self.latencies else 0.0,
            worth,
            self._worth(stage, count) if self.losses else 0.0,
        )  # fmt: skip

    def _seconds(self, unit: Unit) -> float:
        """Of a unit; of a copy that is wider than its original, as many times as long as it has more to multiply."""
        assert self.latencies is not None
        original = next(each for units in self.units for each in units if each.modules == unit.modules)
        return self.latencies.of(unit.modules) * (unit.macs / original.macs if original.macs else 1.0)

    def _gains(self, stage: int, added: list[Unit], removed: list[Unit]) -> tuple[float, float]:
        """Gain and value of a stage with units added and removed."""
        kernels = self._kernels(stage, added, removed)
        steps = published_growth(kernels, self.stages[stage].map, 1.0, self.scores.alpha, self.scores.clamp)
        return sum(step.gain for step in steps), value(step.gain for step in steps)

    def _worth(self, stage: int, count: int) -> float:
        """Of a trained net: the share of the whole gain that is added, less the share of all errors that is made."""
        more = count - len(self.units[stage])
        if more <= 0:
            return -self.losses[stage].together[-more] / max(sum(sum(loss.alone) for loss in self.losses), LEAST)
        at = get_args(Objective).index(self.by)
        before, after = (self._gains(stage, *self._change(stage, n))[at] for n in (count - more, count))
        return (after - before) / sum(self._gains(i, [], [])[at] for i in range(len(self.stages)))

    def _uniform(self, stage: int) -> list[Unit]:
        return [unit for unit in self.units[stage] if unit.uniform]

    def _copied(self, stage: int) -> Unit | None:
        """What copies a stage can have: of its last unit that can, by its paths, with a copy's shapes and costs."""
        uniform = self._uniform(stage)
        wider = [copy for unit in self.units[stage][-1:] if (copy := _widened(self.graph, unit)) is not None]
        for unit in reversed(uniform or wider):
            if not self.losses or not isinstance(identity_start(self.graph, unit.modules), str):
                return unit
        return None

    def _change(self, stage: int, count: int) -> tuple[list[Unit], list[Unit]]:
        """The units to add and to remove: uniform ones, from the back, or of a trained net what counts least first."""
        more, copied = count - len(self.units[stage]), self._copied(stage)
        if more > 0 and copied is not None:
            return [copied] * more, []
        order = self.losses[stage].order if self.losses else self._uniform(stage)[::-1]
        gone = order[:-more] if more else ()
        return [], [unit for unit in self.units[stage] if unit in gone]

    def _kernels(self, stage: int, added: list[Unit], removed: list[Unit]) -> list[tuple[int, ...]]:
        """In the order they will run in: copies stand right behind the unit they are made from."""
        gone = {name for unit in removed for name in unit.convs}
        behind = {unit.convs[-1] for unit in added}
        kernels: list[tuple[int, ...]] = []
        for node in self.stages[stage].counted:
            kernels += [effective_kernel(node)] if node.name not in gone else []
            kernels += [kernel for unit in added for kernel in unit.kernels] if node.name in behind else []
        return kernels

    def _convs(self, stage: int) -> list[str]:
        return [name for unit in self.units[stage] for name in unit.convs]

    def plan(self, choice: Choice) -> Plan:
        """The plan of a choice, with what each edit gains, costs and loses."""
        edits: list[Repeat | Remove] = []
        refusals = list(self.refusals)
        for i, (stage, count) in enumerate(zip(self.stages, choice.blocks, strict=True)):
            edits += self._edits(i, stage.name, count)
            refusals += self._immovable(i)
        return Plan(
            self.graph.model, self.graph.inputs[0].shape[1:], self.graph.fingerprint, self.base, self._judged(edits),
            tuple(refusals), tuple(stage.name for stage in self.stages),
            base_ms=1e3 * self.latencies.total if self.latencies else None, call=call_record(self.graph.signature),
        )  # fmt: skip

    def _judged(self, edits: list[Repeat | Remove]) -> tuple[Repeat | Remove, ...]:
        """Of a trained net, removals with what the output loses without all of them."""
        gone = [edit.unit for edit in edits if isinstance(edit, Remove)]
        if self.effect is None or not gone:
            return tuple(edits)
        sentence = f"without all {len(gone)} that go by {100 * sqrt(self.effect.without(gone)):.3g} %"
        return tuple(replace(e, reason=f"{e.reason}, {sentence}") if isinstance(e, Remove) else e for e in edits)

    def _edits(self, stage: int, name: str, count: int) -> list[Repeat | Remove]:
        """One edit for all copies, or one for each unit that goes."""
        added, removed = self._change(stage, count)
        now = len(self.units[stage])
        sums = {n: self._option(stage, n) for n in range(min(count, now), max(count, now) + 1)}
        change = getattr(sums[count], self.by) - getattr(sums[now], self.by)
        reason = f"{name}: {now} to {count} units change its {self.by} by {change:+.4f}"
        if added:
            original = next(unit for unit in self.units[stage] if unit.modules == added[0].modules)
            costs = self._told(original, added, sums[now], sums[count])
            start: dict[str, Any] = {"start": "identity"} if self.losses else {}
            return [Repeat(original.modules, len(added), name, reason, **costs, **start)]
        return [
            self._removal(stage, Remove(unit.modules, name, reason, **self._told(unit, None, sums[n], sums[n - 1])))
            for unit, n in zip(removed, range(now, count, -1), strict=True)
        ]

    def _removal(self, stage: int, edit: Remove) -> Remove:
        """A removal from a trained net, with what the output loses without that unit."""
        if not self.losses:
            return edit
        error = self.losses[stage].relative(edit.unit)
        sentence = f"without this unit alone the output is off by {100 * error:.3g} %"
        return replace(edit, output_error=error, reason=f"{edit.reason}; {sentence}")

    def _told(self, unit: Unit, copies: list[Unit] | None, before: Option, after: Option) -> dict[str, Any]:
        """What an edit tells of itself: a unit's costs, those with copies (None: without it), and what is gained."""
        stay = [] if copies is None else [unit, *copies]
        costs: dict[str, Any] = {
            name: (getattr(unit, name), sum(getattr(each, name) for each in stay)) for name in ("params", "macs")
        }
        if self.latencies:
            ms = 1e3 * self.latencies.of(unit.modules)
            costs["latency_ms"] = (ms, sum(1e3 * self._seconds(each) for each in stay))
        return costs | {"gain": after.gain - before.gain, "value": after.value - before.value}

    def _immovable(self, stage: int) -> list[Refusal]:
        copied = self._copied(stage)
        shown = [(unit, copied is not None and copied.modules == unit.modules) for unit in self.units[stage]]
        return [
            Refusal(
                " + ".join(unit.modules),
                f"{unit.shapes}, so it is not removed; copies of it read what it makes" if able
                else f"{unit.shapes}, so it is neither copied nor removed",
            )
            for unit, able in shown
            if not unit.uniform
        ]  # fmt: skip


def _widened(graph: Graph, unit: Unit) -> Unit | None:
    """A copy of a unit that changes its channels, as one that does not; None where there is none."""
    widened = None if unit.uniform else widening(graph, unit.modules)
    if widened is None or isinstance(widened, str):
        return None
    return replace(unit, in_shape=unit.out_shape, params=widened.params, macs=widened.macs)
