"""The stage-level organizer: move units to the stages where they add the most gain (Wang et al., CIKM 2021)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Any, get_args

from torch import Tensor, nn

from convsmith.calibration.calibrate import IMAGES, Images, take_images
from convsmith.errors import PlanError
from convsmith.graph import Graph
from convsmith.graph.call_record import call_record
from convsmith.graph.given import bare, graph_of
from convsmith.latency.latencies import Latencies
from convsmith.limits import share_of
from convsmith.plan import Plan, Refusal, Remove, Repeat, Totals
from convsmith.planning.depth import Losses, measure_losses
from convsmith.planning.divisions import Choice, Objective, Option, Rank, divide, front
from convsmith.planning.pricing import Effect
from convsmith.planning.settling import aim_of, held_in, latencies_for
from convsmith.progress import Progress, silent
from convsmith.score.metric import Scores, published_growth, score, value
from convsmith.structure.stages import StageNodes, effective_kernel, find_stages
from convsmith.structure.starts import identity_start
from convsmith.structure.units import Unit, find_units
from convsmith.structure.widening import widening
from convsmith.target import Target

LEAST = 1e-12  # what all units count at least, where none counts anything


def organize(
    net: Graph | nn.Module,
    scores: Scores | Tensor | None = None,
    *,
    blocks: int | None = None,
    max_macs: float | str | None = None,
    max_params: float | str | None = None,
    max_latency: float | str | None = None,
    latencies: Latencies | None = None,
    by: Objective = "gain",
    model: nn.Module | None = None,
    data: Images | None = None,
    images: int = IMAGES,
    seed: int = 0,
    target: Target | str | None = None,
    latency_file: Path | None = None,
    progress: Progress = silent,
) -> Plan:
    """Plan how many units each stage should have, for the largest gain of the net.

    The answer is the global optimum over all ways to divide the units between stages, at least one per stage. A tie
    goes to the later stage. Widths, pools and head stay. From Wang et al., CIKM 2021.

    With images a trained net is organized. Units go where the net's output changes least without them, and new ones
    start as the identity where they add most gain. A choice is worth the share of the net's gain that it adds, less its
    share of the squared errors of the output that all movable units come to, each one taken out alone. There are at
    most as many units as before, so the limits, or units that count little, pay for new ones.

    Args:
        net: A captured graph, or a module.
        scores: Of `score`, for another alpha than 3; for a module its example input.
        blocks: Units in all; by default as many as there are.
        max_macs: A limit as `0.5`, `"0.5x"`, `"50%"` or `"300M"`.
        max_params: The same of parameters.
        max_latency: The same of measured time, as `0.5`, `"0.5x"` or `"5ms"`.
        latencies: Of `measure_latency`, for a graph with a limit on latency; for a module they are measured. A copy is
            taken to run as long as its original.
        by: What to have most of: the published `gain`, or the `value`, the sum of gain^(1/4) (docs/metric.md).
        model: The module that a graph was captured from, with `data` or a target.
        data: Unlabelled images (a tensor, a data set, or batches) that tell what units of a trained net count.
        images: How many of them are taken; a batch of them judges.
        seed: Draws them from a data set.
        target: Where a limit on latency is kept, as `cs.Target.parse` takes it; the new net is measured there too.
        latency_file: With a target, where times of layers are kept.
        progress: Told of every unit that is measured.

    Returns:
        A plan that repeats and removes units; its weights need training again. With images each removal tells what the
        output loses, and copies change nothing at first.

    Raises:
        ConvsmithError: When no division of the units keeps the limits, or for an unknown `by`. For a model without
            images, or images without a model.

    >>> import convsmith as cs, torch
    >>> plan = cs.organize(cs.capture(cs.build("vgg16", input=(3, 32, 32), classes=10), torch.zeros(1, 3, 32, 32)))
    >>> plan.new.blocks, plan.new.params, round(plan.new.gain - plan.base.gain, 2)
    ((5, 4, 2, 1, 1), 5101194, 2.29)
    """
    held = bare(net if isinstance(net, nn.Module) else model)
    aim = aim_of(target, held, max_latency)
    graph, scores = _told(net, scores)
    if max_latency is not None and latencies is None:
        latencies = latencies_for(held, graph, aim, latency_file, progress)
    problem = _Problem.of(graph, scores, latencies, by)
    if data is not None or (model is not None and max_latency is None):
        problem = problem.trained(_effect(held, data, images, seed), progress)
    limits = {
        "macs": share_of(max_macs, graph.macs, "max_macs"), "params": share_of(max_params, graph.params, "max_params"),
        "seconds": share_of(max_latency, latencies.total if latencies else 1.0, "max_latency"),
    }  # fmt: skip
    best = max(problem.choices(blocks, limits), key=problem.rank, default=None)
    if best is None:
        raise PlanError(
            f"{graph.model}: no division of {blocks or problem.blocks} units between the stages keeps the limits; "
            "allow more MACs, parameters or latency."
        )
    return held_in(aim, held, graph, latencies, problem.plan(best), progress, limits["seconds"])


def _effect(model: nn.Module | None, data: Images | None, images: int, seed: int) -> Effect:
    if model is None or data is None:
        given, lacking = ("images", "model") if model is None else ("a model", "data")
        raise PlanError(f"organize: {given} without {lacking} given; both tell what units of a trained net count.")
    return Effect(model, take_images(data, images, seed))


def _told(net: Graph | nn.Module, scores: Scores | Tensor | None) -> tuple[Graph, Scores]:
    """A graph and its scores, from a graph with or without scores, or from a module and its example input."""
    if isinstance(scores, Scores):
        return graph_of(net), scores
    graph = graph_of(net, scores)
    return graph, score(graph)


def pareto(
    net: Graph | nn.Module, scores: Scores | Tensor | None = None, *, blocks: int | None = None, by: Objective = "gain"
) -> tuple[Choice, ...]:
    """Every way to divide the units between stages that no other beats in gain, parameters and MACs at once.

    Args:
        net: A captured graph, or a module.
        scores: Scores of `score`, for another alpha than 3; for a module its example input.
        blocks: Units in all; by default as many as there are.
        by: `gain`, or `value` in its place.

    Returns:
        The choices, cheapest first. Gain is that of the whole net; parameters and MACs are differences to the net as it
        is.

    Raises:
        ConvsmithError: When the net has no stage with units that can move, or not so many units fit.

    >>> import convsmith as cs, torch
    >>> graph = cs.capture(cs.build("vgg16", input=(3, 32, 32), classes=10), torch.zeros(1, 3, 32, 32))
    >>> [choice.blocks for choice in cs.pareto(graph)][-1]
    (5, 4, 2, 1, 1)
    """
    unlimited = {"macs": float("inf"), "params": float("inf")}
    problem = _Problem.of(*_told(net, scores), by=by)
    best = front(problem.choices(blocks, unlimited), lambda c: (-problem.rank(c)[0], c.params, c.macs))
    return tuple(sorted(best, key=lambda choice: (choice.macs, choice.params)))


@dataclass(frozen=True)
class _Problem:
    graph: Graph
    scores: Scores
    stages: tuple[StageNodes, ...]
    units: list[list[Unit]]
    refusals: list[Refusal]
    latencies: Latencies | None
    by: Objective
    losses: tuple[Losses, ...] = ()  # of a trained net, by stage
    effect: Effect | None = None

    def trained(self, effect: Effect, progress: Progress) -> "_Problem":
        """The same for a net whose units count what the output loses without them."""
        return replace(self, losses=tuple(measure_losses(effect, self.units, progress)), effect=effect)

    @classmethod
    def of(cls, graph: Graph, scores: Scores, latencies: Latencies | None = None, by: Objective = "gain") -> "_Problem":
        if by not in get_args(Objective):
            raise PlanError(f"organize: unknown objective {by!r}; choose gain or value.")
        stages = find_stages(graph, graph.reaches())
        if not stages.stages:
            raise PlanError(f"{graph.model} has no stage to organize: no spatial convolution was found.")
        units, refusals = find_units(graph, stages)
        return cls(graph, scores, stages.stages, units, refusals, latencies, by)

    @property
    def base(self) -> Totals:
        options = [self._option(i, len(units)) for i, units in enumerate(self.units)]
        gain, worth = (sum(getattr(option, name) for option in options) for name in get_args(Objective))
        return Totals(tuple(map(len, self.units)), gain, self.graph.params, self.graph.macs, worth)

    @property
    def blocks(self) -> int:
        return sum(map(len, self.units))

    @property
    def rank(self) -> Rank:
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

        found = divide(options, total, measures, self.rank)
        totals = range(total + 1) if self.losses and blocks is None else (total,)
        return [choice for each in totals for choice in found.get(each, []) if fits(choice)]

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
            return -self.losses[stage].together[-more] / max(sum(sum(each.alone) for each in self.losses), LEAST)
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
        told = f"without all {len(gone)} that go by {100 * sqrt(self.effect.without(gone)):.3g} %"
        return tuple(replace(e, reason=f"{e.reason}, {told}") if isinstance(e, Remove) else e for e in edits)

    def _edits(self, stage: int, name: str, count: int) -> list[Repeat | Remove]:
        """One edit for all copies, or one for each unit that goes."""
        added, removed = self._change(stage, count)
        now = len(self.units[stage])
        sums = {n: self._option(stage, n) for n in range(min(count, now), max(count, now) + 1)}
        change = getattr(sums[count], self.by) - getattr(sums[now], self.by)
        reason = f"{name}: {now} to {count} units change its {self.by} by {change:+.4f}"
        if added:
            original = next(unit for unit in self.units[stage] if unit.modules == added[0].modules)
            told = self._told(original, added, sums[now], sums[count])
            start: dict[str, Any] = {"start": "identity"} if self.losses else {}
            return [Repeat(original.modules, len(added), name, reason, **told, **start)]
        return [
            self._removal(stage, Remove(unit.modules, name, reason, **self._told(unit, None, sums[n], sums[n - 1])))
            for unit, n in zip(removed, range(now, count, -1), strict=True)
        ]

    def _removal(self, stage: int, edit: Remove) -> Remove:
        """A removal from a trained net, with what the output loses without that unit."""
        if not self.losses:
            return edit
        error = self.losses[stage].relative(edit.unit)
        told = f"without this unit alone the output is off by {100 * error:.3g} %"
        return replace(edit, output_error=error, reason=f"{edit.reason}; {told}")

    def _told(self, unit: Unit, copies: list[Unit] | None, before: Option, after: Option) -> dict[str, Any]:
        """What an edit tells of itself: a unit's costs, those with copies (None: without it), and what is gained."""
        stay = [] if copies is None else [unit, *copies]
        told: dict[str, Any] = {
            name: (getattr(unit, name), sum(getattr(each, name) for each in stay)) for name in ("params", "macs")
        }
        if self.latencies:
            ms = 1e3 * self.latencies.of(unit.modules)
            told["latency_ms"] = (ms, sum(1e3 * self._seconds(each) for each in stay))
        return told | {"gain": after.gain - before.gain, "value": after.value - before.value}

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
    found = None if unit.uniform else widening(graph, unit.modules)
    if found is None or isinstance(found, str):
        return None
    return replace(unit, in_shape=unit.out_shape, params=found.params, macs=found.macs)
