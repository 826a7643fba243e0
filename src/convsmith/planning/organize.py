"""The stage-level organizer: move units to the stages where they add the most gain (Wang et al., CIKM 2021)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn

from convsmith.errors import PlanError
from convsmith.graph import Graph
from convsmith.graph.call_record import call_record
from convsmith.graph.given import graph_of
from convsmith.latency.latencies import Latencies
from convsmith.limits import share_of
from convsmith.plan import Plan, Refusal, Remove, Repeat, Totals
from convsmith.planning.settling import aim_of, held_in, latencies_for
from convsmith.progress import Progress, silent
from convsmith.score.metric import Scores, published_growth, score, value
from convsmith.structure.stages import StageNodes, effective_kernel, find_stages
from convsmith.structure.units import Unit, find_units
from convsmith.target import Target
from convsmith.text import times

Objective = Literal["gain", "value"]


@dataclass(frozen=True)
class Option:
    """A stage with `blocks` units: its gain and value, and what the whole net then has more (or less) than the base."""

    blocks: int
    gain: float
    params: int
    macs: int
    seconds: float = 0.0
    value: float = 0.0


@dataclass(frozen=True)
class Choice:
    """Units for every stage so far, and what they cost and gain.

    Attributes:
        blocks: Units of each stage.
        gain: Summed gain.
        params: Parameters; of `pareto`, as a difference to the net as it is.
        macs: Multiply-accumulates, likewise.
        seconds: Measured seconds for one image, likewise; 0 where none were measured.
        value: Summed value.
    """

    blocks: tuple[int, ...]
    gain: float
    params: int
    macs: int
    seconds: float = 0.0
    value: float = 0.0

    def rank(self, by: Objective = "gain") -> tuple[float, tuple[int, ...]]:
        """What is best: the most gain (or value); a tie goes to the later stage. Rounded, so that ties are seen."""
        return round({"gain": self.gain, "value": self.value}[by], 9), self.blocks[::-1]

    def add(self, option: Option) -> "Choice":
        """The same with one stage more."""
        return Choice(
            (*self.blocks, option.blocks),
            self.gain + option.gain, self.params + option.params, self.macs + option.macs,
            self.seconds + option.seconds, self.value + option.value,
        )  # fmt: skip


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
    target: Target | str | None = None,
    latency_file: Path | None = None,
    progress: Progress = silent,
) -> Plan:
    """Plan how many units each stage should have, for the largest gain of the net.

    The answer is the global optimum over all ways to divide the units between stages, at least one per stage. A tie
    goes to the later stage. Widths, pools and head stay. From Wang et al., CIKM 2021.

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
        model: The module that a graph was captured from, with a target.
        target: Where a limit on latency is kept, as `cs.Target.parse` takes it; the new net is measured there too.
        latency_file: With a target, where times of layers are kept.
        progress: Told of what is measured.

    Returns:
        A plan that repeats and removes units; its weights need training again.

    Raises:
        ConvsmithError: When no division of the units keeps the limits, or for an unknown `by`.

    >>> import convsmith as cs, torch
    >>> plan = cs.organize(cs.capture(cs.build("vgg16", input=(3, 32, 32), classes=10), torch.zeros(1, 3, 32, 32)))
    >>> plan.new.blocks, plan.new.params, round(plan.new.gain - plan.base.gain, 2)
    ((5, 4, 2, 1, 1), 5101194, 2.29)
    """
    model = net if isinstance(net, nn.Module) else model
    graph, scores = _told(net, scores)
    aim = aim_of(target, model, max_latency)
    if max_latency is not None and latencies is None:
        latencies = latencies_for(model, graph, aim, latency_file, progress)
    problem = _Problem.of(graph, scores, latencies, by)
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
    return held_in(aim, model, graph, latencies, problem.plan(best), progress, limits["seconds"])


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


Measures = Callable[[Choice], tuple[float, ...]]
Rank = Callable[[Choice], tuple[float, tuple[int, ...]]]


def front(choices: Sequence[Choice], measures: Measures) -> list[Choice]:
    """The choices that no other beats: none is as good in every measure (the less the better) and better in one."""
    values = [measures(choice) for choice in choices]

    def beaten(mine: tuple[float, ...]) -> bool:
        return any(other != mine and _as_good(other, mine) for other in values)

    return [choice for choice, mine in zip(choices, values, strict=True) if not beaten(mine)]


def _as_good(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))


def allocate(
    options: Sequence[Sequence[Option]],
    total: int,
    fits: Callable[[Choice], bool],
    measures: Measures,
    rank: Rank = Choice.rank,
) -> list[Choice]:
    """Choose one option per stage with `total` blocks in all; the choices that fit, without those that cannot be best.

    Stage by stage, of the choices that have used as many blocks one is dropped when another ranks before it and is as
    good in every measure. What follows costs and gains the same behind both (dynamic programming). So the first in rank
    and the front are among those kept.
    """
    kept = {0: [Choice((), 0.0, 0, 0)]}
    for stage in options:
        grown: dict[int, list[Choice]] = {}
        for used, choices in kept.items():
            for option in stage:
                if used + option.blocks <= total:
                    grown.setdefault(used + option.blocks, []).extend(choice.add(option) for choice in choices)
        kept = {used: _worth_keeping(choices, measures, rank) for used, choices in grown.items()}
    return [choice for choice in kept.get(total, []) if fits(choice)]


def _worth_keeping(choices: list[Choice], measures: Measures, rank: Rank) -> list[Choice]:
    kept: list[tuple[tuple[float, ...], Choice]] = []
    for choice in sorted(choices, key=rank, reverse=True):
        values = measures(choice)
        if not any(_as_good(other, values) for other, _ in kept):
            kept.append((values, choice))
    return [choice for _, choice in kept]


@dataclass(frozen=True)
class _Problem:
    graph: Graph
    scores: Scores
    stages: tuple[StageNodes, ...]
    units: list[list[Unit]]
    refusals: list[Refusal]
    latencies: Latencies | None
    by: Objective

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
        return partial(Choice.rank, by=self.by)

    def choices(self, blocks: int | None, allowed: Mapping[str, float | None]) -> list[Choice]:
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

        return allocate(options, total, fits, measures, self.rank)

    def _options(self, stage: int, total: int) -> list[Option]:
        """From the fewest units the stage can have to as many as there are in all."""
        units = self.units[stage]
        uniform = [unit for unit in units if unit.uniform]
        if not uniform or len(self._convs(stage)) != len(self.stages[stage].counted):
            return [self._option(stage, len(units))]  # nothing to copy, or convolutions that no unit holds
        fewest, most = max(len(units) - len(uniform), 1), max(total, len(units))
        return [self._option(stage, count) for count in range(fewest, most + 1)]

    def _option(self, stage: int, count: int) -> Option:
        added, removed = self._change(stage, count)
        kernels = self._kernels(stage, added, removed)
        steps = published_growth(kernels, self.stages[stage].map, 1.0, self.scores.alpha, self.scores.clamp)
        difference = [(unit, 1) for unit in added] + [(unit, -1) for unit in removed]
        return Option(
            count,
            sum(step.gain for step in steps),
            sum(sign * unit.params for unit, sign in difference),
            sum(sign * unit.macs for unit, sign in difference),
            sum(sign * self.latencies.of(unit.modules) for unit, sign in difference) if self.latencies else 0.0,
            value(step.gain for step in steps),
        )

    def _change(self, stage: int, count: int) -> tuple[list[Unit], list[Unit]]:
        """The units to add (copies of the last uniform one) and to remove (uniform ones, from the back)."""
        uniform = [unit for unit in self.units[stage] if unit.uniform]
        more = count - len(self.units[stage])
        return ([uniform[-1]] * more, []) if more > 0 else ([], uniform[len(uniform) + more :])

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
        edits: list[Repeat | Remove] = []
        refusals = list(self.refusals)
        for i, (stage, count) in enumerate(zip(self.stages, choice.blocks, strict=True)):
            edits += self._edits(i, stage.name, count)
            refusals += self._immovable(i)
        return Plan(
            self.graph.model,
            self.graph.inputs[0].shape[1:],
            self.graph.fingerprint,
            self.base,
            tuple(edits),
            tuple(refusals),
            tuple(stage.name for stage in self.stages),
            base_ms=1e3 * self.latencies.total if self.latencies else None,
            call=call_record(self.graph.signature),
        )

    def _edits(self, stage: int, name: str, count: int) -> list[Repeat | Remove]:
        """One edit for all copies, or one for each unit that goes, the last first."""
        added, removed = self._change(stage, count)
        now = len(self.units[stage])
        sums = {n: self._option(stage, n) for n in range(min(count, now), max(count, now) + 1)}
        change = getattr(sums[count], self.by) - getattr(sums[now], self.by)
        reason = f"{name}: {now} to {count} units change its {self.by} by {change:+.4f}"
        if added:
            told = self._told(added[0], 1 + len(added), sums[now], sums[count])
            return [Repeat(added[0].modules, len(added), name, reason, **told)]
        return [
            Remove(unit.modules, name, reason, **self._told(unit, 0, sums[n], sums[n - 1]))
            for unit, n in zip(removed, range(now, count, -1), strict=True)
        ]

    def _told(self, unit: Unit, times: int, before: Option, after: Option) -> dict[str, Any]:
        """What an edit tells of itself: a unit's costs once and so many times, and what its stage then has more."""
        told: dict[str, Any] = {"params": (unit.params, times * unit.params), "macs": (unit.macs, times * unit.macs)}
        if self.latencies:
            ms = 1e3 * self.latencies.of(unit.modules)
            told["latency_ms"] = (ms, times * ms)
        return told | {"gain": after.gain - before.gain, "value": after.value - before.value}

    def _immovable(self, stage: int) -> list[Refusal]:
        return [
            Refusal(
                " + ".join(unit.modules),
                f"its shape changes from {times(unit.in_shape)} to {times(unit.out_shape)}, "
                "so it is neither copied nor removed",
            )
            for unit in self.units[stage]
            if not unit.uniform
        ]
