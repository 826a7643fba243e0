"""Blocks chosen by costs alone: the cheapest that see as much, and under a limit those for which the dearest give way.

Quality: 3DRF(block) = 3DRF(convolution) for the same input. Compact: leaving any kernel out makes it smaller. Both are
from Wang et al., CIKM 2021.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import gcd, inf

from convsmith.blocks import Block, DwRpw, parse_block
from convsmith.graph import Graph
from convsmith.latency.latencies import Latencies
from convsmith.plan import Plan, Refusal, Request
from convsmith.planning.budget import Costs
from convsmith.planning.candidates import (
    Candidate,
    Trial,
    consider,
    none_below,
    overridden,
    searched,
    searched_all,
    try_block,
)
from convsmith.planning.conv_chains import Window, find_windows, shortest, split
from convsmith.planning.edits import placed, plan_of
from convsmith.planning.ladder import RUNG, Joint, Priced, give_way
from convsmith.planning.settling import Settle, as_planned
from convsmith.progress import Progress, silent

# What `auto` takes without a limit, and starts from under one: closed forms carry trained weights into them.
SEPARABLE = ("dw-pw", "pw-dw")
# Overlaps tried for rolling blocks in a row, the one with few windows first: it is the fastest.
OVERLAPS = (0.5, 0.25)


def plan_by_cost(
    graph: Graph,
    asked: Request,
    latencies: Latencies | None = None,
    progress: Progress = silent,
    settle: Settle = as_planned,
) -> Plan:
    """The plan of what was asked, ranks following costs; see `decompose`."""
    if asked.limited:
        return settle(lambda costs: _within(graph, asked, costs, progress), Costs.of(graph, asked, latencies))
    wanted = [parse_block(name) for name in _names(asked)]
    candidates, refusals = consider(
        graph, wanted, forced=asked.block != "auto", ranked=False, keep=asked.keep, skip=asked.overrides,
        progress=progress,
    )  # fmt: skip
    fixed = overridden(graph, asked.overrides, asked.keep)
    return plan_of(graph, [(c, c.trials[-1]) for c in candidates], refusals, asked, fixed=fixed)


def _names(asked: Request) -> tuple[str, ...]:
    return SEPARABLE if asked.block == "auto" else (asked.block,)


def _within(graph: Graph, asked: Request, costs: Costs, progress: Progress) -> Plan:
    """The plan that keeps a limit; raises BudgetError where none does."""
    wanted = [parse_block(name) for name in _names(asked)]
    fixed = overridden(graph, asked.overrides, asked.keep)
    least = inf
    for candidates, refusals, joints in _offers(graph, wanted, asked.block == "auto", asked, costs, progress):
        costs_kept = [costs.layer(candidate) for candidate in candidates]
        rest = costs.total + costs.change(fixed) - sum(costs_kept)
        limit = costs.limit - rest
        falling: list[list[Priced[Trial]]] = []
        for candidate in candidates:
            progress(f"pricing {candidate.layer}", len(falling), len(candidates))
            falling.append(costs.falling(candidate))
        chosen, total = give_way(costs_kept, falling, joints, limit)
        least = min(least, total + rest)
        if total <= limit:
            proved = [(c, _proved(c, trial)) for c, trial in zip(candidates, chosen, strict=True)]
            return plan_of(graph, proved, refusals, asked, costs, fixed)
    raise costs.unmet(least, "choose a cheaper block")


Offer = tuple[list[Candidate], list[Refusal], list[Joint[Trial]]]


def _offers(
    graph: Graph, wanted: Sequence[Block], auto: bool, asked: Request, costs: Costs, progress: Progress
) -> Iterator[Offer]:
    """What can give way under a limit, each time more of it: to be asked for the next only where one is not enough."""
    for below in (searched, searched_all) if auto else (none_below,):
        candidates, refusals = consider(
            graph, wanted, forced=not auto, ranked=True, keep=asked.keep, skip=asked.overrides, below=below,
            progress=progress,
        )  # fmt: skip
        yield candidates, refusals, []
    if auto:
        yield candidates, refusals, list(_joints(graph, candidates, costs))


def _joints(graph: Graph, candidates: Sequence[Candidate], costs: Costs) -> Iterator[Joint[Trial]]:
    """Rolling blocks for pairs and threes of convolutions in a row, cheaper than what each of them can have alone."""
    able = {c.node.name: i for i, c in enumerate(candidates) if DwRpw(1, 0).refuses(c.spec) is None}
    windows = find_windows(graph, [candidates[i].node for i in able.values()])
    for row in split(windows):
        members = tuple(able[node.name] for node in row.nodes)
        inside = [window for window in windows if set(window.layers) <= set(row.layers)]
        layers = [candidates[i] for i in members]
        if rungs := tuple(_priced(layers, rung, costs) for rung in _rungs(layers, inside)):
            yield Joint(members, rungs)


def _priced(layers: Sequence[Candidate], rung: Sequence[Trial], costs: Costs) -> tuple[Priced[Trial], ...]:
    return tuple(Priced(trial, costs.trials(c, [trial])[0]) for c, trial in zip(layers, rung, strict=True))


def _rungs(row: Sequence[Candidate], windows: Sequence[Window]) -> Iterator[tuple[Trial, ...]]:
    """The same block in every place, sparser from one to the next, as long as all see as much in some window."""
    macs: float = sum(candidate.least for candidate in row)
    widths = gcd(*(candidate.spec.in_channels for candidate in row))
    for g in (g for g in range(2, widths + 1) if widths % g == 0):
        blocks = [DwRpw(g, o) for o in OVERLAPS]
        trials = [tuple(try_block(block, c.spec, c.size) for c in row) for block in blocks]
        now = sum(trial.macs for trial in trials[0])
        if now > RUNG * macs or any(t.macs >= c.least for t, c in zip(trials[0], row, strict=True)):
            continue
        sound = next((found for each in trials if (found := _sound(row, each, windows))), None)
        if sound is None:
            return
        yield sound
        macs = now


def _sound(row: Sequence[Candidate], trials: Sequence[Trial], windows: Sequence[Window]) -> tuple[Trial, ...] | None:
    """The same with their windows, where each is in one over which all see as much and need every kernel for it."""
    standing = placed(list(zip(row, trials, strict=True)))
    shortest_windows = shortest(windows, standing)
    if shortest_windows.keys() != standing.keys() or not all(
        window.is_compact(standing) for window in set(shortest_windows.values())
    ):
        return None
    return tuple(replace(t, window=shortest_windows[c.node.name].layers) for c, t in zip(row, trials, strict=True))


def _proved(candidate: Candidate, trial: Trial | None) -> Trial | None:
    """The trial by the exact reach of the module, where it was found by the search's own arithmetic."""
    if trial is None or not trial.found:
        return trial
    proved = replace(try_block(trial.block, candidate.spec, candidate.size), found=True)
    assert proved == trial, f"the search holds {trial} to be sound, the built module is {proved}"
    return proved
