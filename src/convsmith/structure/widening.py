"""Copies of a unit that makes more channels than it reads: which of its modules become wider, and what a copy costs."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from convsmith.graph import Graph, Node, is_norm
from convsmith.graph.ops.elementwise import ACTIVATIONS
from convsmith.structure.units import calls_inside

# What treats each channel alike and alone, without weights.
_PER_CHANNEL = (ACTIVATIONS - {"aten.prelu.default"}) | {
    "aten.dropout.default", "aten.dropout_.default", "aten.clone.default", "aten.contiguous.default",
    "aten.max_pool2d.default", "aten.avg_pool2d.default", "aten.adaptive_avg_pool2d.default",
}  # fmt: skip


@dataclass(frozen=True)
class Widening:
    """How a copy of a unit reads as many channels as the unit makes, `width`.

    `reading` are convolutions whose inputs become so many. `through` are depthwise convolutions and norms that become
    as wide. `params` and `macs` are those of the copy.
    """

    width: int
    reading: tuple[str, ...]
    through: tuple[str, ...]
    params: int
    macs: int


@dataclass
class _Walk:
    """What has been found so far: tensors as wide as what the copy reads, and modules to change."""

    wide: set[str]
    reading: list[str] = field(default_factory=list)
    through: list[str] = field(default_factory=list)


def widening(graph: Graph, modules: Sequence[str]) -> Widening | str:
    """What to widen for copies of a unit that keeps the map and changes channels, or why none can stand behind it.

    >>> import convsmith as cs, torch
    >>> graph = cs.capture(cs.build("mobilenet", input=(3, 32, 32)), torch.zeros(1, 3, 32, 32))
    >>> found = widening(graph, ("layer1.0",))
    >>> found.width, found.reading, found.through
    (64, ('layer1.0.conv2',), ('layer1.0.conv1', 'layer1.0.bn1'))
    """
    inside = calls_inside(graph, tuple(modules))
    names = {node.name for node in inside}
    entry = next(name for node in inside for name in graph.sources(node) if name not in names)
    before, after = graph.shapes[entry][1:], inside[-1].call.out[1:]
    if len(before) != len(after) or before[1:] != after[1:]:
        return "its map changes"
    walk = _Walk({entry})
    for node in inside:
        if walk.wide.intersection(graph.sources(node)) and (reason := _widen(graph, node, walk)):
            return reason
    if inside[-1].name in walk.wide:
        return "its channels are not made by a convolution"
    ratio = (after[0], before[0])
    params, macs = (sum(each) for each in zip(*(_cost(node, walk, ratio) for node in inside), strict=True))
    return Widening(after[0], tuple(walk.reading), tuple(walk.through), params, macs)


def _widen(graph: Graph, node: Node, walk: _Walk) -> str | None:
    """Note what a call that reads a wider tensor needs; why it cannot, where it cannot."""
    spec = node.conv_spec()
    if spec is not None and node.module in graph.convolutions and spec.groups == 1:
        walk.reading.append(node.module)
        return None
    depthwise = spec is not None and spec.groups == spec.in_channels == spec.out_channels
    if (is_norm(node) and node.leaf) or (depthwise and node.module in graph.convolutions):
        walk.through.append(node.module)
    elif node.call.op not in _PER_CHANNEL:
        return f"{node.call.op.split('.')[1]} of {node.module or 'the model'} would have to be made wider"
    walk.wide.add(node.name)
    return None


def _cost(node: Node, walk: _Walk, ratio: tuple[int, int]) -> tuple[int, int]:
    """Parameters and MACs of a call in the copy: all that it has a channel grows, but for the bias behind a sum."""
    grow = ratio[0] / ratio[1]
    if node.module in walk.through:
        return round(node.params * grow), round(node.macs * grow)
    if node.module in walk.reading:
        bias = node.call["bias"]
        fixed = 0 if bias is None else bias.shape[0]
        return round((node.params - fixed) * grow) + fixed, round(node.macs * grow)
    return node.params, node.macs
