"""Convolutions in a row: what blocks in their places see together where each alone sees less, by exact reach.

A window begins with what the first convolution of a row reads. It ends with a tensor that all which depends on the
first must pass, the nearest behind the last one. That is the last one's own output, or the sum that ends its residual
unit. Norms and activations between stay; nothing else between multiplies, or changes the map.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import nn

from convsmith.blocks import Block
from convsmith.errors import CaptureError, ShapeError
from convsmith.graph import Graph, Node
from convsmith.graph.capture import capture
from convsmith.kernels.spec import ConvSpec

LONGEST_ROW = 4

Size = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class StandIn:
    """The calls of a block on one map, and without each of its kernels; None where the rest leaves another map."""

    whole: Graph
    without: tuple[Graph | None, ...]


@lru_cache(maxsize=4096)
def stand_in(block: Block, conv: ConvSpec, size: Size) -> StandIn:
    """Build a block on the meta device and capture it on a map of `size`."""
    with torch.device("meta"):
        built = block.build(conv)
    probe = torch.zeros(1, conv.in_channels, *size, device="meta")
    whole = capture(built, probe)
    return StandIn(whole, tuple(_left_over(built, i, whole) for i in range(len(built))))


def _left_over(built: nn.Sequential, left_out: int, whole: Graph) -> Graph | None:
    rest = type(built)(*(kernel for i, kernel in enumerate(built) if i != left_out))
    try:
        graph = capture(rest, torch.zeros(whole.inputs[0].shape, device="meta"))
    except (CaptureError, ShapeError):  # the rest does not run alone
        return None
    alike = graph.outputs and graph.shapes[graph.outputs[0]] == whole.shapes[whole.outputs[0]]
    return graph if alike and graph.nodes else None


@dataclass(frozen=True, eq=False)
class Window:
    """Some convolutions of a graph in a row, and the tensor behind the last that tells what all of them see."""

    graph: Graph
    nodes: tuple[Node, ...]
    exit: str

    @property
    def layers(self) -> tuple[str, ...]:
        """Their module paths, in order of execution."""
        return tuple(node.module for node in self.nodes)

    @property
    def entry(self) -> str:
        """The tensor that the first of them reads."""
        return self.graph.sources(self.nodes[0])[0]

    def sees(self, inside: Mapping[str, Graph]) -> float:
        """The 3DRF of the exit for what enters, with other calls in places of the row."""
        reach = self.graph.reaches(self.entry, [self.exit], inside).get(self.exit)
        return 0.0 if reach is None else reach.extent().volume

    @cached_property
    def _seen(self) -> float:
        """What the convolutions themselves see."""
        return self.sees({})

    def meets_quality(self, placed: Mapping[str, StandIn]) -> bool:
        """Whether blocks in all places, by the names of the calls, see together what the convolutions see."""
        return self.sees(self._whole(placed)) >= self._seen > 0

    def is_compact(self, placed: Mapping[str, StandIn]) -> bool:
        """Whether they see less together without any one kernel of any of them."""
        whole = self._whole(placed)
        seen = self.sees(whole)
        return all(
            rest is None or self.sees({**whole, node.name: rest}) < seen
            for node in self.nodes
            for rest in placed[node.name].without
        )

    def _whole(self, placed: Mapping[str, StandIn]) -> dict[str, Graph]:
        return {node.name: placed[node.name].whole for node in self.nodes}


def find_windows(graph: Graph, nodes: Sequence[Node]) -> list[Window]:
    """All windows of two to four of these convolutions in a row, the shortest first, then in order of execution."""
    order = {node.name: place for place, node in enumerate(graph.nodes)}
    last_read = {name: place for place, node in enumerate(graph.nodes) for name in graph.sources(node)}
    last_read |= dict.fromkeys(graph.outputs, len(graph.nodes))
    chosen = {node.name for node in nodes}
    windows = [window for node in nodes for window in _from(graph, order[node.name], chosen, last_read)]
    return sorted(filter(_alone, windows), key=lambda window: len(window.nodes))


def _alone(window: Window) -> bool:
    """Whether nothing else multiplies between what enters and the exit: a shortcut's own convolution mixes for all."""
    graph, passed = window.graph, {window.entry}
    for node in graph.leading_to([window.exit]):
        if passed.intersection(graph.sources(node)):
            if node.kind and node not in window.nodes:
                return False
            passed.add(node.name)
    return True


def _from(graph: Graph, start: int, chosen: Collection[str], last_read: Mapping[str, int]) -> Iterator[Window]:
    """The windows that begin with one convolution."""
    row, counted = [graph.nodes[start]], 1
    changed = {row[0].name}  # what depends on the first of the row
    since = set(changed)  # what depends on the last
    for place, node in enumerate(graph.nodes[start + 1 :], start + 1):
        sources = changed.intersection(graph.sources(node))
        if not sources:
            continue
        if node.kind:
            if node.name not in chosen or not sources <= since or len(row) == LONGEST_ROW:
                return
            row.append(node)
            since = {node.name}
        elif any(node.call.out[2:] != graph.shapes[name][2:] for name in sources):
            return
        elif sources & since:
            since.add(node.name)
        changed.add(node.name)
        alive = {name for name in changed if last_read.get(name, -1) > place}
        if alive == {node.name} and len(row) > counted:
            counted = len(row)
            yield Window(graph, tuple(row), node.name)


def shortest(windows: Sequence[Window], placed: Mapping[str, StandIn]) -> dict[str, Window]:
    """For each call that has a block in its place the first of the windows around it that meets Quality, if any."""
    windows_by_layer: dict[str, Window] = {}
    for window in windows:
        open_ = [node.name for node in window.nodes if node.name not in windows_by_layer]
        if open_ and window.meets_quality(placed):
            windows_by_layer |= dict.fromkeys(open_, window)
    return windows_by_layer


def split(windows: Sequence[Window]) -> list[Window]:
    """Windows apart from each other: pairs in order of execution, and three where one would be left over."""
    taken: set[str] = set()
    pairs = []
    for window in windows:
        if len(window.nodes) == 2 and taken.isdisjoint(window.layers):
            pairs.append(window)
            taken.update(window.layers)
    threes = {w.layers[:2]: w for w in windows if len(w.nodes) == 3 and w.layers[2] not in taken}
    return [threes.get(pair.layers, pair) for pair in pairs]
