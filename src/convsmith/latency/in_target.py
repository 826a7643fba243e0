"""What a net's layers take in a target, as planners ask for it."""

from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path

from torch import nn

from convsmith.blocks import Block
from convsmith.errors import ConvsmithError
from convsmith.graph import Graph, Node
from convsmith.kernels.spec import ConvSpec
from convsmith.latency.clock import Clock
from convsmith.latency.latencies import Latencies
from convsmith.latency.nets import NetTimer
from convsmith.progress import Progress, silent
from convsmith.target import Target


class TargetLatencies(Latencies):
    """Seconds in a target: of the whole net, and in context of its layers, of blocks, and of modules in a row."""

    def __init__(self, model: nn.Module, graph: Graph, clock: Clock, progress: Progress = silent) -> None:
        progress(f"timing {graph.model} in {clock.target}", 0, 1)
        self.net, self.clock = NetTimer(model, graph, clock), clock
        self._model, self._graph = model, graph
        self._groups: dict[tuple[str, object], float] = {}
        super().__init__({"": clock.set_pace(self.net.run)})
        clock.fit_below(self.total, [seconds for seconds in self.layers(model, graph) if seconds])

    @property
    def target(self) -> Target:
        """Where it was measured."""
        return self.clock.target

    def of(self, paths: Iterable[str]) -> float:
        """Of modules that run one after another; raises ConvsmithError where that is unknown."""
        known = list(paths)
        first = self._first(known[0])
        conv = _conv(first)
        if len(known) == 1 and conv is not None and first.module == known[0]:
            return self.clock.seconds(*conv)
        return self._in_a_row(known, first.call.input.shape[1:])

    def blocks(self, layer: str, conv: ConvSpec, size: tuple[int, ...], blocks: Sequence[Block]) -> list[float]:
        """Of each block in a layer's place."""
        return self.clock.all_seconds(conv, size, blocks)

    def resized(self, layer: str, conv: ConvSpec, other: ConvSpec, size: tuple[int, ...]) -> float:
        """Of a layer once it has other channels."""
        return self.clock.seconds(other, size)

    def layers(self, model: nn.Module, graph: Graph) -> list[float | None]:
        """By layer: of convolutions; None for others, whose context is not known."""
        convs = map(_conv, graph.layers)
        return [None if conv is None else self.clock.seconds(*conv) for conv in convs]

    def _first(self, path: str) -> Node:
        inside = (n for n in self._graph.nodes if n.module == path or n.module.startswith(f"{path}."))
        first = next(inside, None)
        if first is None:
            raise ConvsmithError(f"{path} is never called as a module, so its latency is unknown; limit MACs.")
        return first

    def _in_a_row(self, paths: Sequence[str], shape: tuple[int, ...]) -> float:
        """Modules alike on maps alike are read once."""
        row = nn.Sequential(*(self._model.get_submodule(path) for path in paths))
        key = repr(row), shape
        if key not in self._groups:
            if not 2 <= len(shape) <= 4 or not prod(shape):
                raise ConvsmithError(f"{paths[0]} reads no map, so its latency in a target is unknown; limit MACs.")
            self._groups[key] = self.clock.above_context({"": row}, shape)[""]
        return self._groups[key]


def _conv(node: Node) -> tuple[ConvSpec, tuple[int, ...]] | None:
    spec = node.conv_spec()
    return None if spec is None else (spec, tuple(node.call.input.shape[2:]))


def latencies_in(
    model: nn.Module, graph: Graph, target: Target, file: Path | None = None, progress: Progress = silent
) -> TargetLatencies:
    """Times of a net in a target; `file` keeps those of layers."""
    weights = sum(parameter.nbytes for parameter in model.parameters())
    return TargetLatencies(model, graph, Clock(target, weights, file, progress), progress)
