"""Find a network's stages from its graph: runs of spatial convolutions between one down-sampling and the next."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from convsmith.graph import GETITEM, Graph, Node
from convsmith.graph.call import numbers
from convsmith.reach import Reach

STEM, HEAD = "stem", "head"


@dataclass(frozen=True)
class StageNodes:
    """A stage: the map (height, width) that enters its first counted convolution, and its calls in order."""

    name: str
    map: tuple[int, ...]
    counted: tuple[Node, ...]
    nodes: tuple[Node, ...]

    @property
    def channels(self) -> int:
        """Output channels of the first counted convolution, c_0 of the published formula."""
        return self.counted[0].call.out[1]


@dataclass(frozen=True)
class Stages:
    """All stages of a net, what comes before and behind them, by the names of their tensors."""

    stages: tuple[StageNodes, ...]
    names: Mapping[str, str]

    def name_of(self, node: Node) -> str:
        """The stage of a call, or `stem` or `head`; empty behind unknown ops."""
        return self.names.get(node.name, "")


def find_stages(graph: Graph, reaches: Mapping[str, Reach]) -> Stages:
    """Cut the net at every change of the map's size (Wang et al., CIKM 2021, as recovered from their tables).

    Counted are convolutions over the map's axes with a kernel wider than one. The first one is the stem, and not
    counted, in a net that has depthwise convolutions or residual joins. Side branches that end in a gate belong to the
    stage they hang on.
    """
    maps = _maps(graph, reaches)
    known = [node for node in graph.nodes if node.name in maps]
    levels = _levels(graph, known, maps)
    axes = len(maps[graph.inputs[0].name])
    spatial = [node for node in known if is_spatial(node) and len(node.call["weight"].shape) == axes + 2]
    counted = spatial[1:] if has_stem(graph) else spatial
    used = sorted({levels[node.name] for node in counted})
    names = {level: f"stage{i}" for i, level in enumerate(used, 1)}
    stem = {node.name for node in known if counted and node.name in _up_to_stem(known, spatial, counted)}
    stages = []
    for level, name in names.items():
        own = tuple(n for n in known if levels[n.name] == level and n.name not in stem)
        convs = tuple(n for n in counted if levels[n.name] == level)
        stages.append(StageNodes(name, maps[graph.sources(convs[0])[0]], convs, own))
    inside = {node.name: stage.name for stage in stages for node in stage.nodes}
    outside = {n.name: STEM if n.name in stem or (used and levels[n.name] < used[0]) else HEAD for n in known}
    return Stages(tuple(stages), outside | inside)


def entry(graph: Graph, node: Node) -> str:
    """The last tensor through which everything that a call reads has come: what its stage counts from.

    A split is no tensor: what it splits stands for it.
    """
    name = graph.before(node)
    lists = {graph.sources(n)[0] for n in graph.nodes if n.call.op == GETITEM}
    while name in lists:
        name = graph.sources(graph.by_name[name])[0]
    return name


def _maps(graph: Graph, reaches: Mapping[str, Reach]) -> dict[str, tuple[int, ...]]:
    """The map of every tensor whose reach is known; where none is to be seen (tokens, lists), its source's."""
    lists = {graph.sources(node)[0] for node in graph.nodes if node.call.op == GETITEM}
    maps = {name: size for name, reach in reaches.items() if len(size := reach.map) == len(reach.windows)}
    for node in graph.nodes:
        source = next((name for name in graph.sources(node) if name in maps), None)
        if node.name not in maps and source and (node.name in reaches or node.name in lists):
            maps[node.name] = maps[source]
    return maps


def is_spatial(node: Node) -> bool:
    """A convolution whose kernel is wider than one along some axis."""
    return node.kind == "conv" and node.call.op.startswith("aten.conv") and prod(node.call["weight"].shape[2:]) > 1


def is_depthwise(node: Node) -> bool:
    """A convolution in which every input channel is a group of its own."""
    return is_spatial(node) and node.call["groups"] == node.call.input.shape[1] > 1


def has_stem(graph: Graph) -> bool:
    """Whether the net has depthwise convolutions or residual joins, so that its first convolution is a stem."""
    joins = (n for n in graph.nodes if n.call.op.startswith("aten.add") and len(graph.sources(n)) > 1)
    residual = any(all(graph.shapes[s] == n.call.out for s in graph.sources(n)) for n in joins)
    return residual or any(is_depthwise(node) for node in graph.nodes)


def _up_to_stem(known: list[Node], spatial: list[Node], counted: list[Node]) -> set[str]:
    """The stem convolution and what stands before it, when it is not counted."""
    if len(spatial) == len(counted):
        return set()
    return {node.name for node in known[: known.index(spatial[0]) + 1]}


def _levels(graph: Graph, known: list[Node], maps: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """How often the map has changed its size on the way to each tensor; gates change nothing.

    Changes with no layer between them (a slice per axis, two pools) are one: each counts from the last layer's level.
    """
    main = _main(graph, maps)
    levels = {x.name: 0 for x in graph.inputs}
    at_layer = dict(levels)
    for node in known:
        sources = [s for s in graph.sources(node) if s in levels and s in maps]
        carriers = [s for s in sources if maps[s] == maps[node.name]]
        if carriers or node.name not in main:
            levels[node.name] = max(levels[s] for s in carriers or sources)
        else:
            levels[node.name] = max(at_layer[s] for s in sources) + 1
        at_layer[node.name] = levels[node.name] if node.kind else max(at_layer[s] for s in sources)
    return levels


def _main(graph: Graph, maps: Mapping[str, tuple[int, ...]]) -> set[str]:
    """The tensors that reach the output otherwise than through a gate."""
    main = set(graph.outputs)
    for node in reversed(graph.nodes):
        if node.name in main:
            sources = graph.sources(node)
            same = [s for s in sources if maps.get(s) == maps.get(node.name)]
            main.update(same if len(sources) > 1 and same else sources)
    return main


def effective_kernel(node: Node) -> tuple[int, ...]:
    """The side that a kernel spans, dilation included: d (k - 1) + 1 per axis."""
    kernel = node.call["weight"].shape[2:]
    dilation = numbers(node.call["dilation"], len(kernel))
    return tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
