"""The kernel-level decomposer: a cheaper block for each convolution, sharing its reach (Wang et al., CIKM 2021).

Quality: 3DRF(block) = 3DRF(convolution) for the same input. Compact: leaving any kernel out makes it smaller.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import gcd, inf

from convsmith.blocks import Block, DwRpw, parse_block
from convsmith.graph import Graph
from convsmith.latency.measure import Latencies
from convsmith.plan import Budget, Edit, Plan, Refusal, Replace, Totals
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
from convsmith.planning.conv_chains import StandIn, Window, find_windows, shortest, split, stand_in
from convsmith.planning.costs import Costs
from convsmith.planning.ladder import RUNG, Joint, Priced, give_way
from convsmith.score.metric import score
from convsmith.structure.stages import find_stages
from convsmith.structure.units import find_units

# What `auto` takes without a limit, and starts from under one: closed forms carry trained weights into them.
SEPARABLE = ("dw-pw", "pw-dw")
# Overlaps tried for rolling blocks in a row, the one with few windows first: it is the fastest.
OVERLAPS = (0.5, 0.25)


def decompose(
    graph: Graph,
    *,
    block: str = "auto",
    max_macs: float | None = None,
    keep: Sequence[str] = (),
    max_latency: float | None = None,
    latencies: Latencies | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Plan:
    """Plan a cheaper block for every convolution that admits one.

    block: `auto` chooses per convolution among those that have Quality and Compact: without a limit the cheaper of the
    two separable forms; under one, their ranks and below them what `search_blocks` finds. Where these cannot meet it,
    1x1 convolutions give way too, and at last rolling blocks come in, which have both over a window of convolutions in
    a row. A name forces one, and a forced block that misses Quality is planned and flagged. max_macs: a limit on the
    whole net as a multiple of its own; the dearest layers then give way first, rank by rank. keep: layers to leave
    alone. max_latency: the same by measured time, which `latencies` of `measure_latency` tell. overrides: by layer, the
    block that it becomes whatever the others do.
    Raises ConvsmithError for an unknown block or layer, for an override that cannot be, and for a limit that cannot be
    met.

    >>> import convsmith as cs, torch
    >>> plan = cs.decompose(cs.capture(cs.build("vgg11", input=(3, 32, 32), classes=10), torch.zeros(1, 3, 32, 32)))
    >>> len(plan.edits), plan.edits[0].block, plan.edits[0].macs, plan.refusals[0]
    (7, 'dw-pw', (18874368, 2244608), Refusal(layer='features.0', reason='it is a stem with 3 input channels, ...'))
    """
    auto = block == "auto"
    wanted = [parse_block(name) for name in (SEPARABLE if auto else (block,))]
    fixed = overridden(graph, overrides or {}, keep)
    if max_macs is max_latency is None:
        candidates, refusals = consider(graph, wanted, forced=not auto, ranked=False, keep=keep, skip=overrides or ())
        return plan_of(graph, [(c, c.trials[-1]) for c in candidates], refusals, auto, fixed=fixed)
    asked = Budget(block, max_macs, tuple(keep), max_latency, dict(overrides or {}))
    costs = Costs.of(graph, asked, latencies)
    least = inf
    for candidates, refusals, joints in _offers(graph, wanted, auto, asked, costs):
        own = [costs.layer(candidate) for candidate in candidates]
        rest = costs.total + costs.change(fixed) - sum(own)
        limit = costs.limit - rest
        chosen, total = give_way(own, [costs.falling(c) for c in candidates], joints, limit)
        least = min(least, total + rest)
        if total <= limit:
            proved = [(c, _proved(c, trial)) for c, trial in zip(candidates, chosen, strict=True)]
            plan = plan_of(graph, proved, refusals, auto, costs, fixed)
            return plan if joints else replace(plan, budget=asked)  # data chooses anew, but for no rows
    raise costs.unmet(least, "choose a cheaper block")


Offer = tuple[list[Candidate], list[Refusal], list[Joint[Trial]]]


def _offers(graph: Graph, wanted: Sequence[Block], auto: bool, asked: Budget, costs: Costs) -> Iterator[Offer]:
    """What can give way under a limit, each time more of it: to be asked for the next only where one is not enough."""
    for below in (searched, searched_all) if auto else (none_below,):
        candidates, refusals = consider(
            graph, wanted, forced=not auto, ranked=True, keep=asked.keep, skip=asked.overrides, below=below
        )
        yield candidates, refusals, []
    if auto:
        yield candidates, refusals, list(_joints(graph, candidates, costs))


def _joints(graph: Graph, candidates: Sequence[Candidate], costs: Costs) -> Iterator[Joint[Trial]]:
    """Rolling blocks for pairs and threes of convolutions in a row, cheaper than what each of them can have alone."""
    able = {c.node.name: i for i, c in enumerate(candidates) if DwRpw(1, 0).refuses(c.spec) is None}
    windows = find_windows(graph, [candidates[i].node for i in able.values()])
    for row in split(windows):
        members = tuple(able[node.name] for node in row.nodes)
        own = [window for window in windows if set(window.layers) <= set(row.layers)]
        layers = [candidates[i] for i in members]
        if rungs := tuple(_priced(layers, rung, costs) for rung in _rungs(layers, own)):
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
    placed = _placed(list(zip(row, trials, strict=True)))
    found = shortest(windows, placed)
    if found.keys() != placed.keys() or not all(window.is_compact(placed) for window in set(found.values())):
        return None
    return tuple(replace(t, window=found[c.node.name].layers) for c, t in zip(row, trials, strict=True))


def _placed(changed: Sequence[tuple[Candidate, Trial]]) -> dict[str, StandIn]:
    return {c.node.name: stand_in(trial.block, c.spec, c.size) for c, trial in changed}


def _proved(candidate: Candidate, trial: Trial | None) -> Trial | None:
    """The trial by the exact reach of the module, where it was found by the search's own arithmetic."""
    if trial is None or not trial.found:
        return trial
    proved = replace(try_block(trial.block, candidate.spec, candidate.size), found=True)
    assert proved == trial, f"the search holds {trial} to be sound, the built module is {proved}"
    return proved


def plan_of(
    graph: Graph,
    chosen: Sequence[tuple[Candidate, Trial | None]],
    refusals: Sequence[Refusal],
    auto: bool,
    costs: Costs | None = None,
    fixed: Sequence[tuple[Candidate, Trial]] = (),
) -> Plan:
    """The plan that puts each candidate's trial in its place; None leaves it as it is.

    auto: nobody asked for these blocks; costs: what a limit counts, where they are those that it allows; fixed: what
    was asked for single layers.
    """
    kept = [Refusal(c.layer, "the limit lets it stay as it is") for c, trial in chosen if trial is None]
    order = {node.name: place for place, node in enumerate(graph.nodes)}
    changed = [*fixed, *((c, trial) for c, trial in chosen if trial is not None)]
    changed.sort(key=lambda pair: order[pair[0].node.name])
    windows = _windows(graph, [(c, trial) for c, trial in changed if not (trial.quality or trial.window)])
    usual = "asked for;" if not auto else "within the limit;" if costs is not None else "the cheapest that"
    why = {candidate.layer: "asked for;" for candidate, _ in fixed}
    edits = [_edit(c, trial, why.get(c.layer, usual), windows.get(c.node.name, trial.window)) for c, trial in changed]
    totals = [(trial.params - c.params, trial.macs - c.node.macs) for c, trial in changed]
    latency = None if costs is None else costs.change_ms(changed)
    return replace(planned(graph, edits, [*refusals, *kept], totals), latency_ms=latency)


def _windows(graph: Graph, lacking: Sequence[tuple[Candidate, Trial]]) -> dict[str, tuple[str, ...]]:
    """For each of some blocks that miss Quality the layers of the shortest window of them that meets it, if any."""
    found = shortest(find_windows(graph, [candidate.node for candidate, _ in lacking]), _placed(lacking))
    return {name: window.layers for name, window in found.items()}


def _edit(candidate: Candidate, trial: Trial, why: str, window: tuple[str, ...]) -> Replace:
    return Replace(
        candidate.layer, str(trial.block), f"{why} {_told(trial, len(window))}", (candidate.node.macs, trial.macs),
        trial.quality, trial.compact, window=window,
    )  # fmt: skip


def _told(trial: Trial, in_a_row: int) -> str:
    """What a block sees and needs, alone and with its neighbours."""
    seen = "sees as much"
    if not trial.quality:
        others = f"{in_a_row} in a row see as much" if in_a_row else "no row of them sees as much"
        seen = f"misses Quality: sees {trial.share:.3g} of what the convolution saw ({others})"
    needs = "needs every kernel for it" if trial.compact else "misses Compact: a kernel could be left out"
    start = "" if trial.block.carries else "; it starts untrained"
    return f"{seen} and {needs}{start}"


def planned(
    graph: Graph,
    edits: Sequence[Edit],
    refusals: Sequence[Refusal],
    changes: Sequence[tuple[int, int]],
) -> Plan:
    """The plan of `edits` that see as much as what they replace; `changes` are what each adds: parameters, MACs."""
    units, _ = find_units(graph, find_stages(graph, graph.reaches()))
    base = Totals(tuple(map(len, units)), score(graph).gain, graph.params, graph.macs)
    params, macs = (sum(change[i] for change in changes) for i in (0, 1))
    # What sees as much keeps its place in the count, so the published gain stays.
    new = Totals(base.blocks, base.gain, base.params + params, base.macs + macs)
    shape = graph.inputs[0].shape[1:]
    return Plan(graph.model, shape, graph.fingerprint, base, new, tuple(edits), tuple(refusals))
