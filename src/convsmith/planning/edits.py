"""Plans of what was chosen: an edit a candidate, with what it says of itself and why."""

from collections.abc import Sequence

from convsmith.graph import Graph
from convsmith.graph.call_record import call_record
from convsmith.plan import Edit, Plan, Refusal, Replace, Request, Totals
from convsmith.planning.budget import Costs
from convsmith.planning.candidates import Candidate, Trial
from convsmith.planning.conv_chains import StandIn, find_windows, shortest, stand_in
from convsmith.score.metric import score
from convsmith.structure.stages import find_stages
from convsmith.structure.units import find_units

Chosen = tuple[Candidate, Trial | None]


def plan_of(
    graph: Graph,
    chosen: Sequence[Chosen],
    refusals: Sequence[Refusal],
    asked: Request,
    costs: Costs | None = None,
    fixed: Sequence[tuple[Candidate, Trial]] = (),
) -> Plan:
    """The plan that puts each candidate's trial in its place; None leaves it as it is.

    costs: what a limit counts, where there is one; fixed: what was asked for single layers.
    """
    kept = [Refusal(c.layer, "the limit lets it stay as it is") for c, trial in chosen if trial is None]
    order = {node.name: place for place, node in enumerate(graph.nodes)}
    changed = [*fixed, *((c, trial) for c, trial in chosen if trial is not None)]
    changed.sort(key=lambda pair: order[pair[0].node.name])
    windows = _windows(graph, [(c, trial) for c, trial in changed if not (trial.quality or trial.window)])
    overridden_layers = {candidate.layer for candidate, _ in fixed}
    edits = []
    for candidate, trial in changed:
        why = "asked for;" if candidate.layer in overridden_layers else _why(asked, trial)
        window = windows.get(candidate.node.name, trial.window)
        edits.append(_edit(candidate, trial, f"{why} {_told(trial, len(window))}", window, costs))
    base_ms = None if costs is None or costs.latencies is None else costs.total / 1e6
    return planned(graph, edits, [*refusals, *kept], asked, base_ms)


def planned(
    graph: Graph,
    edits: Sequence[Edit],
    refusals: Sequence[Refusal],
    asked: Request | None = None,
    base_ms: float | None = None,
) -> Plan:
    """The plan of `edits` for a captured model."""
    stages = find_stages(graph, graph.reaches())
    units, _ = find_units(graph, stages)
    scores = score(graph)
    base = Totals(tuple(map(len, units)), scores.gain, graph.params, graph.macs, scores.value)
    names = tuple(stage.name for stage in stages.stages)
    shape = graph.inputs[0].shape[1:]
    return Plan(
        graph.model, shape, graph.fingerprint, base, tuple(edits), tuple(refusals), names, asked, base_ms,
        call_record(graph.signature),
    )  # fmt: skip


def _why(asked: Request, trial: Trial) -> str:
    """Who chose a block: the user, the limit within the family that the user named, or `auto`."""
    if asked.block == "auto":
        return "within the limit;" if asked.limited else "the cheapest that"
    if asked.limited and str(trial.block) != asked.block:
        return f"{trial.block.name} asked for, this rank chosen within the limit;"
    return "asked for;"


def placed(changed: Sequence[tuple[Candidate, Trial]]) -> dict[str, StandIn]:
    """What stands in for each call, by its name."""
    return {c.node.name: stand_in(trial.block, c.spec, c.size) for c, trial in changed}


def _windows(graph: Graph, lacking: Sequence[tuple[Candidate, Trial]]) -> dict[str, tuple[str, ...]]:
    """For each of some blocks that see less, the layers of the shortest row of them that sees as much, if any."""
    windows_by_layer = shortest(find_windows(graph, [candidate.node for candidate, _ in lacking]), placed(lacking))
    return {name: window.layers for name, window in windows_by_layer.items()}


def _edit(candidate: Candidate, trial: Trial, reason: str, window: tuple[str, ...], costs: Costs | None) -> Replace:
    return Replace(
        candidate.layer, str(trial.block), reason, (candidate.node.macs, trial.macs), trial.quality, trial.compact,
        window=window, params=(candidate.params, trial.params),
        latency_ms=None if costs is None else costs.change_ms(candidate, trial),
    )  # fmt: skip


def _told(trial: Trial, in_a_row: int) -> str:
    """What a block sees and needs, alone and with its neighbours."""
    seen = "sees as much as the convolution"
    if not trial.quality:
        others = f"{in_a_row} of them in a row see all of it" if in_a_row else "it may lose accuracy"
        seen = f"sees {100 * trial.share:.3g} % of what the convolution saw; {others}"
    spare = "" if trial.compact else "; one of its kernels adds nothing to what it sees, so look for a cheaper block"
    start = "" if trial.block.carries else "; it starts untrained, so train the net"
    return f"{seen}{spare}{start}"
