"""Convolutions that can be replaced, and the blocks tried in their places: what each costs and how much it sees."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from math import prod

import torch

from convsmith.blocks import Block, parse_block
from convsmith.errors import PlanError
from convsmith.graph import Graph, Node
from convsmith.graph.capture import capture
from convsmith.kernels.spec import ConvSpec
from convsmith.plan import Refusal
from convsmith.planning.conv_chains import stand_in
from convsmith.planning.ladder import ladder
from convsmith.planning.search.sequences import find_sequences, refused
from convsmith.progress import Progress, silent
from convsmith.structure.editable import untouchable


@dataclass(frozen=True)
class Trial:
    """A block tried in a convolution's place: what it costs, and how much of its 3DRF it keeps (1: Quality)."""

    block: Block
    params: int
    macs: int
    share: float
    compact: bool
    found: bool = False  # by the search, whose arithmetic built no module
    window: tuple[str, ...] = ()  # layers in a row, this one among them, over which blocks that miss Quality meet it

    @property
    def quality(self) -> bool:
        """Whether it sees as much as the convolution."""
        return self.share >= 1


@dataclass(frozen=True)
class Candidate:
    """A convolution that can be replaced, what it costs itself, and its trials, dearest first."""

    node: Node
    params: int
    trials: tuple[Trial, ...]

    @property
    def layer(self) -> str:
        """Its module path."""
        return self.node.module

    @property
    def spec(self) -> ConvSpec:
        """The convolution as plain data."""
        spec = self.node.conv_spec()
        assert spec is not None
        return spec

    @property
    def size(self) -> tuple[int, ...]:
        """The map it reads, as height and width."""
        return _size(self.node)

    @property
    def least(self) -> int:
        """The fewest multiply-accumulates that it can be brought to alone."""
        return self.trials[-1].macs if self.trials else self.node.macs


def _size(node: Node) -> tuple[int, ...]:
    return node.call.input.shape[2:]


@lru_cache(maxsize=4096)
def try_block(block: Block, conv: ConvSpec, size: tuple[int, ...]) -> Trial:
    """Build a block on the meta device for a map of `size`, read its cost and exact reach, and test Compact."""
    with torch.device("meta"):
        standard = replace(conv, bias=False).standard()
    whole = _volume(capture(standard, torch.zeros(1, conv.in_channels, *size, device="meta")))
    tried = stand_in(block, conv, size)
    share = _volume(tried.whole) / whole if whole else 1.0  # all taps may lie in the padding of a map of one pixel
    compact = all(rest is None or _volume(rest) < share * whole for rest in tried.without)
    return Trial(block, tried.whole.params, tried.whole.macs, share, compact)


def _volume(graph: Graph) -> float:
    return graph.reaches()[graph.outputs[0]].extent().volume


TABLE = "it works on a table of the net's own, made anew in every run, and not on the input"

Below = Callable[[ConvSpec, tuple[int, ...], int], Sequence[Trial]]


def none_below(conv: ConvSpec, size: tuple[int, ...], macs: int) -> Sequence[Trial]:
    """No cheaper blocks than those asked for."""
    return ()


def searched(conv: ConvSpec, size: tuple[int, ...], macs: int) -> Sequence[Trial]:
    """Blocks that the search finds for a map of `size`, from fewer than `macs` down; what is chosen is proved."""
    return () if prod(conv.kernel) == 1 else searched_all(conv, size, macs)


def searched_all(conv: ConvSpec, size: tuple[int, ...], macs: int) -> Sequence[Trial]:
    """The same, and for 1x1 convolutions too; not for those on one pixel, layers of a gate or of the head."""
    if prod(size) == 1 or refused(conv, size):
        return ()
    sequences = find_sequences(conv, size)
    dearest_first = sorted(sequences, key=lambda f: (-f.macs, f.params, len(f.kernels)))
    return [Trial(f.block, f.params, f.macs, 1.0, True, found=True) for f in ladder(dearest_first, macs)]


def consider(
    graph: Graph,
    blocks: Sequence[Block],
    *,
    forced: bool,
    ranked: bool,
    keep: Collection[str] = (),
    skip: Collection[str] = (),
    below: Below = none_below,
    progress: Progress = silent,
) -> tuple[list[Candidate], list[Refusal]]:
    """The convolutions that can be replaced by one of `blocks`, and why the others cannot; those to `skip` are neither.

    forced: also by blocks that miss Quality or Compact; ranked: with dearer ranks of the cheapest block that can, and
    below it what `below` finds. Raises ConvsmithError where a layer to keep is not there.
    """
    _known(graph, "keep", keep)
    reaches = graph.reaches()
    candidates: list[Candidate] = []
    refusals: list[Refusal] = []
    convolutions = [node for node in graph.layers if node.kind == "conv" and node.module not in skip]
    for number, node in enumerate(convolutions):
        progress(f"trying blocks for {node.module}", number, len(convolutions))
        decision: Candidate | Refusal = Refusal(node.module, graph.functional_reason(node) or graph.why_unknown(node))
        if node.name in reaches:
            decision = _consider(graph, node, blocks, forced=forced, ranked=ranked, keep=keep, below=below)
        candidates += [decision] if isinstance(decision, Candidate) else []
        refusals += [decision] if isinstance(decision, Refusal) else []
    refusals += [Refusal(path, TABLE) for path in sorted(graph.tables & graph.convolutions) if path not in skip]
    return candidates, refusals


def _consider(
    graph: Graph, node: Node, wanted: Sequence[Block], forced: bool, ranked: bool, keep: Collection[str], below: Below
) -> Candidate | Refusal:
    spec = node.conv_spec()
    reason = "it was asked to be kept" if node.module in keep else untouchable(graph, node, spec)
    if reason or spec is None:
        return Refusal(node.module, reason or "")
    size = _size(node)
    fitted = [block.on_map(spec, size) for block in wanted]
    reasons = [block.refuses(spec) for block in fitted]
    trials = [try_block(block, spec, size) for block, reason in zip(fitted, reasons, strict=True) if reason is None]
    sound = [t for t in trials if forced or (t.quality and t.compact)]
    best = min(sound, key=lambda t: t.macs, default=None)
    cheaper = list(below(spec, size, node.macs if best is None else min(best.macs, node.macs)))
    if best is not None:
        ranks = [best.block, *best.block.dearer(spec)] if ranked else [best.block]
        tried = (try_block(block, spec, size) for block in ranks)
        cheaper += [t for t in tried if t.macs < node.macs or (forced and not ranked)]
    if not cheaper and not trials:
        return Refusal(node.module, next(filter(None, reasons)))
    if not cheaper and not forced:
        return Refusal(node.module, "no block that sees as much is cheaper")
    return Candidate(node, node.params, tuple(sorted(cheaper, key=lambda t: -t.macs)))


def overridden(graph: Graph, overrides: Mapping[str, str], keep: Collection[str]) -> list[tuple[Candidate, Trial]]:
    """The convolutions that are to become blocks of their own, by the names of layers, in order of execution.

    Raises ConvsmithError where there is no such layer, where it is to be kept too, and where the block cannot be there.
    """
    _known(graph, "overrides", overrides)
    pairs = []
    for node in (node for node in graph.layers if node.module in overrides):
        spec, block = node.conv_spec(), parse_block(overrides[node.module])
        reason = "it was asked to be kept" if node.module in keep else untouchable(graph, node, spec)
        if spec is not None and not reason:
            block = block.on_map(spec, _size(node))
            reason = block.refuses(spec)
        if spec is None or reason:
            raise PlanError(f"{node.module} cannot become {block}: {reason}; leave its override out.")
        pairs.append((Candidate(node, node.params, ()), try_block(block, spec, _size(node))))
    return pairs


def _known(graph: Graph, what: str, layers: Collection[str]) -> None:
    known = {node.module for node in graph.layers}
    if unknown := sorted(set(layers) - known):
        near = get_close_matches(unknown[0], sorted(known), n=3)  # tables for the terminal cut names
        hint = f"did you mean {', '.join(near)}?" if near else "`convsmith analyze --json -` lists its layers in full."
        raise PlanError(f"{what}: {graph.model} has no layer {unknown[0]!r}; {hint}")
