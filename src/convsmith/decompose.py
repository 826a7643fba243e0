"""The kernel-level decomposer: a cheaper block for each convolution, sharing its reach (Wang et al., CIKM 2021).

Quality: 3DRF(block) = 3DRF(convolution) for the same input. Compact: leaving any kernel out makes it smaller.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import nn

from convsmith.blocks import Block, parse_block
from convsmith.capture import capture
from convsmith.conv import ConvSpec
from convsmith.costs import Candidate, Costs, Trial, keep_within
from convsmith.errors import ConvsmithError
from convsmith.graph import Graph, Node
from convsmith.latency import Latencies
from convsmith.metric import score
from convsmith.plan import Budget, Edit, Plan, Refusal, Replace, Totals
from convsmith.sequences import Found, find_sequences, refused
from convsmith.stages import find_stages
from convsmith.units import find_units

# What `auto` takes without a limit, and starts from under one: closed forms carry trained weights into them.
SEPARABLE = ("dw-pw", "pw-dw")
# Under a limit every next block has at most this part of the one before: steps fine enough for a budget, few to prove.
RUNG = 0.85


def decompose(
    graph: Graph,
    *,
    block: str = "auto",
    max_macs: float | None = None,
    keep: Sequence[str] = (),
    max_latency: float | None = None,
    latencies: Latencies | None = None,
) -> Plan:
    """Plan a cheaper block for every convolution that admits one.

    block: `auto` chooses per convolution among those that have Quality and Compact: without a limit the cheaper of the
    two separable forms; under one, their ranks and below them what `search_blocks` finds. A name forces one, and a
    forced block that misses Quality is planned and flagged. max_macs: a limit on the whole net as a multiple of its
    own; the dearest layers then give way first, rank by rank. keep: layers to leave alone. max_latency: the same by
    measured time, which `latencies` of `measure_latency` tell.
    Raises ConvsmithError for an unknown block or layer, and for a limit that cannot be met.

    >>> import convsmith as cs, torch
    >>> plan = cs.decompose(cs.capture(cs.build("vgg11", input=(3, 32, 32), classes=10), torch.zeros(1, 3, 32, 32)))
    >>> len(plan.edits), plan.edits[0].block, plan.edits[0].macs, plan.refusals[0]
    (7, 'dw-pw', (18874368, 2244608), Refusal(layer='features.0', reason='it is a stem with 3 input channels, ...'))
    """
    auto = block == "auto"
    wanted = [parse_block(name) for name in (SEPARABLE if auto else (block,))]
    budget = None if max_macs is max_latency is None else Budget(block, max_macs, tuple(keep), max_latency)
    costs = None if budget is None else Costs.of(graph, budget, latencies)
    below = searched if auto and budget is not None else none_below
    candidates, refusals = consider(graph, wanted, forced=not auto, ranked=budget is not None, keep=keep, below=below)
    if costs is None:
        return plan_of(graph, [(c, c.trials[-1]) for c in candidates], refusals, auto)
    within = zip(candidates, keep_within(candidates, costs), strict=True)
    chosen = [(candidate, _proved(candidate, trial)) for candidate, trial in within]
    return plan_of(graph, chosen, refusals, auto, budget, costs)


Below = Callable[[ConvSpec, tuple[int, int], int], Sequence[Trial]]


def none_below(conv: ConvSpec, size: tuple[int, int], macs: int) -> Sequence[Trial]:
    """No cheaper blocks than those asked for."""
    return ()


def searched(conv: ConvSpec, size: tuple[int, int], macs: int) -> Sequence[Trial]:
    """Blocks that the search finds for a map of `size`, from fewer than `macs` down; what is chosen is proved."""
    if refused(conv, size):
        return ()
    found = find_sequences(conv, size)
    return [Trial(each.block, each.params, each.macs, 1.0, True, len(found)) for each in _ladder(found, macs)]


def _proved(candidate: Candidate, trial: Trial | None) -> Trial | None:
    """The trial by the exact reach of the module, where it was found by the search's own arithmetic."""
    spec = candidate.node.conv_spec()
    if trial is None or spec is None or not trial.found:
        return trial
    height, width = candidate.node.call.input.shape[2:]
    proved = replace(try_block(trial.block, spec, (height, width)), found=trial.found)
    assert proved == trial, f"the search holds {trial} to be sound, the built module is {proved}"
    return proved


def _ladder(found: Sequence[Found], macs: float) -> list[Found]:
    """The dearest that costs at most RUNG of the one before, of equals the one with fewest parameters and kernels."""
    rungs: list[Found] = []
    for each in sorted(found, key=lambda f: (-f.macs, f.params, len(f.kernels))):
        if each.macs <= RUNG * macs:
            rungs.append(each)
            macs = each.macs
    return rungs


def consider(
    graph: Graph,
    blocks: Sequence[Block],
    *,
    forced: bool,
    ranked: bool,
    keep: Sequence[str] = (),
    below: Below = none_below,
) -> tuple[list[Candidate], list[Refusal]]:
    """The convolutions that can be replaced by one of `blocks`, and why the others cannot.

    forced: also by blocks that miss Quality or Compact; ranked: with dearer ranks of the cheapest block that can, and
    below it what `below` finds. Raises ConvsmithError where a layer to keep is not there.
    """
    unknown = sorted(set(keep) - {node.module for node in graph.layers})
    if unknown:
        raise ConvsmithError(f"keep: {graph.model} has no layer {unknown[0]!r}; `convsmith analyze` lists its layers.")
    reaches = graph.reaches()
    candidates: list[Candidate] = []
    refusals: list[Refusal] = []
    for node in (node for node in graph.layers if node.kind == "conv"):
        found: Candidate | Refusal = Refusal(
            node.module, "it stands behind an op without a rule: what it sees is unknown"
        )
        if node.name in reaches:
            found = _consider(graph, node, blocks, forced=forced, ranked=ranked, keep=keep, below=below)
        candidates += [found] if isinstance(found, Candidate) else []
        refusals += [found] if isinstance(found, Refusal) else []
    return candidates, refusals


def plan_of(
    graph: Graph,
    chosen: Sequence[tuple[Candidate, Trial | None]],
    refusals: Sequence[Refusal],
    auto: bool,
    budget: Budget | None = None,
    costs: Costs | None = None,
) -> Plan:
    """The plan that puts each candidate's trial in its place; None leaves it as it is."""
    kept = [Refusal(c.layer, "the limit lets it stay as it is") for c, trial in chosen if trial is None]
    changed = [(c, trial) for c, trial in chosen if trial is not None]
    edits = [_edit(c, trial, auto) for c, trial in changed]
    totals = [(trial.params - c.params, trial.macs - c.node.macs) for c, trial in changed]
    latency = None if costs is None else costs.change_ms(chosen)
    return planned(graph, edits, [*refusals, *kept], totals, budget, latency)


def _consider(
    graph: Graph, node: Node, wanted: Sequence[Block], forced: bool, ranked: bool, keep: Sequence[str], below: Below
) -> Candidate | Refusal:
    spec = node.conv_spec()
    reason = "it was asked to be kept" if node.module in keep else untouchable(graph, node, spec)
    if reason or spec is None:
        return Refusal(node.module, reason or "")
    size = (node.call.input.shape[2], node.call.input.shape[3])
    fitted = [block.on_map(spec, size) for block in wanted]
    refused = {str(block): block.refuses(spec) for block in fitted}
    able = [block for block in fitted if refused[str(block)] is None]
    if not able:
        return Refusal(node.module, next(filter(None, refused.values())))
    trials = [try_block(block, spec, size) for block in able]
    sound = [t for t in trials if forced or (t.quality and t.compact)]
    best = min(sound, key=lambda t: t.macs, default=None)
    cheaper = list(below(spec, size, node.macs if best is None else min(best.macs, node.macs)))
    if best is not None:
        ranks = [best.block, *best.block.dearer(spec)] if ranked else [best.block]
        tried = (try_block(block, spec, size) for block in ranks)
        cheaper += [t for t in tried if t.macs < node.macs or (forced and not ranked)]
    if not cheaper and not forced:
        return Refusal(node.module, "no block that sees as much is cheaper")
    return Candidate(node, node.params, tuple(sorted(cheaper, key=lambda t: -t.macs)))


def untouchable(graph: Graph, node: Node, spec: ConvSpec | None) -> str | None:
    """Why nothing can be put in a convolution's place, or None where it can."""
    if spec is None:
        return "it is not a plain two-dimensional convolution module with a weight of its own"
    if not node.module:
        return "it is the model itself; put it in an nn.Sequential to have it replaced"
    if graph.calls.get(node.module, 1) > 1:
        return f"it is called {graph.calls[node.module]} times"
    if any(other.module == node.module for other in graph.nodes if other is not node):
        return "its module does more than convolve, so a block would not do the same"
    return "it shares its weights with another module" if node.module in graph.shared else None


@lru_cache(maxsize=4096)
def try_block(block: Block, conv: ConvSpec, size: tuple[int, int]) -> Trial:
    """Build a block on the meta device for a map of `size`, read its cost and exact reach, and test Compact."""
    with torch.device("meta"):
        standard = nn.Conv2d(
            conv.in_channels, conv.out_channels, conv.kernel, conv.stride, conv.padding, conv.dilation, conv.groups
        )
        built = block.build(conv)
    whole = _volume(capture(standard, _probe(conv, size)))
    graph = capture(built, _probe(conv, size))
    share = _volume(graph) / whole
    compact = all(_sees_without(built, i, graph) < share * whole for i in range(len(built)))
    return Trial(block, graph.params, graph.macs, share, compact)


def _probe(conv: ConvSpec, size: tuple[int, int]) -> torch.Tensor:
    return torch.zeros(1, conv.in_channels, *size, device="meta")


def _sees_without(built: nn.Sequential, left_out: int, whole: Graph) -> float:
    """What a block sees with one kernel left out; nothing where the others do not fit or leave another map."""
    rest = type(built)(*(kernel for i, kernel in enumerate(built) if i != left_out))
    try:
        graph = capture(rest, torch.zeros(whole.inputs[0].shape, device="meta"))
    except ConvsmithError:
        return 0.0
    return _volume(graph) if graph.shapes[graph.outputs[0]] == whole.shapes[whole.outputs[0]] else 0.0


def _volume(graph: Graph) -> float:
    return graph.reaches()[graph.outputs[0]].extent().volume


def _edit(candidate: Candidate, trial: Trial, auto: bool) -> Replace:
    seen = "sees as much" if trial.quality else f"misses Quality: sees {trial.share:.3g} of what the convolution saw"
    choice = "the cheapest that" if auto else "asked for;"
    if trial.found:
        choice = f"for the MACs allowed, one of {trial.found} found that"
    needs = "needs every kernel for it" if trial.compact else "misses Compact: a kernel could be left out"
    start = "" if trial.block.carries else "; it starts untrained"
    reason = f"{choice} {seen} and {needs}{start}"
    return Replace(
        candidate.layer, str(trial.block), reason, (candidate.node.macs, trial.macs), trial.quality, trial.compact
    )


def planned(
    graph: Graph,
    edits: Sequence[Edit],
    refusals: Sequence[Refusal],
    changes: Sequence[tuple[int, int]],
    budget: Budget | None = None,
    latency_ms: tuple[float, float] | None = None,
) -> Plan:
    """The plan of `edits` that see as much as what they replace; `changes` are what each adds: parameters, MACs."""
    units, _ = find_units(graph, find_stages(graph, graph.reaches()))
    base = Totals(tuple(map(len, units)), score(graph).gain, graph.params, graph.macs)
    params, macs = (sum(change[i] for change in changes) for i in (0, 1))
    # What sees as much keeps its place in the count, so the published gain stays.
    new = Totals(base.blocks, base.gain, base.params + params, base.macs + macs)
    shape = graph.inputs[0].shape[1:]
    return Plan(graph.model, shape, graph.fingerprint, base, new, tuple(edits), tuple(refusals), budget, latency_ms)
