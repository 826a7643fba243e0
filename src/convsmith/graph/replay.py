"""Run a captured net's calls again on real batches, any stretch of them, with modules of one's own in some places."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from convsmith.errors import CaptureError
from convsmith.graph.call import Operand
from convsmith.graph.graph import GETITEM, Graph, Node

Tensors = dict[str, Any]  # by the names of a graph: what is alive at one point of a run


class Replay:
    """The calls of `graph`, captured of `model` or of one with the same modules, on the weights that `model` has.

    The graph must be captured for the batch size that is run. A stretch costs what its calls cost, so that a net
    changed in one place is run from there on.

    >>> from convsmith.graph.capture import capture
    >>> net, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), torch.rand(2, 3, 8, 8)
    >>> replay = Replay(net, capture(net, x, batch=2))
    >>> alive = replay.start(x)
    >>> replay.run(alive, 0, 2)
    >>> torch.equal(alive[replay.graph.outputs[0]], net(x))
    True
    """

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        self.graph = graph
        self._own = dict(graph.constants) | dict(model.named_parameters()) | dict(model.named_buffers())
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._calls = [_callable(node) for node in graph.nodes]
        self._freed = _last_reads(graph)

    def start(self, *inputs: Tensor) -> Tensors:
        """What is alive before the first call."""
        return dict(zip((x.name for x in self.graph.inputs), inputs, strict=True))

    def run(self, alive: Tensors, first: int, stop: int, modules: Mapping[str, nn.Module] | None = None) -> None:
        """Run the calls `first` up to but not including `stop`, and let go of what no later call reads.

        modules: by the name of a node, what to run on its input in the call's place.
        """
        modules = modules or {}
        with torch.no_grad():
            for place in range(first, stop):
                node = self.graph.nodes[place]
                if node.name in modules:
                    alive[node.name] = modules[node.name](alive[node.call.input.name])
                else:
                    alive[node.name] = self._call(place, node, alive)
                for name in self._freed[place]:
                    alive.pop(name, None)

    def _call(self, place: int, node: Node, alive: Tensors) -> Any:
        args = {name: self._value(arg, alive) for name, arg in node.call.args.items()}
        if node.call.op == GETITEM:
            return args["self"][args["index"]]
        if self._calls[place] is None:  # written into through another view: the memory says what it holds
            return args["self"]
        schema = self._calls[place]._schema.arguments
        return self._calls[place](
            *(args[a.name] for a in schema if a.name in args and not a.kwarg_only),
            **{a.name: args[a.name] for a in schema if a.name in args and a.kwarg_only},
        )

    def _value(self, arg: Any, alive: Tensors) -> Any:
        if isinstance(arg, Operand):
            return self._own[arg.name] if arg.own else alive[arg.name]
        if isinstance(arg, list):
            return [self._value(item, alive) for item in arg]
        return self._device if isinstance(arg, torch.device) else arg


def _callable(node: Node) -> Any:
    """The op that a node calls; None for what only stands for a tensor."""
    if node.call.op == GETITEM or node.call.op.endswith(" through a view"):
        return None
    space, name, overload = node.call.op.split(".")
    op = getattr(getattr(getattr(torch.ops, space), name), overload)
    written = [a.name for a in op._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    if any(isinstance(x := node.call.args.get(name), Operand) and x.own for name in written):
        raise CaptureError(
            f"{node.module or 'The model'} writes into a table of its own ({node.call.op}), so its calls cannot be run "
            "again batch by batch; use --method svd, which needs no data."
        )
    return op


def _last_reads(graph: Graph) -> list[list[str]]:
    """For each call the tensors that it is the last to read; outputs stay."""
    last = {name: place for place, node in enumerate(graph.nodes) for name in (node.name, *graph.sources(node))}
    freed: list[list[str]] = [[] for _ in graph.nodes]
    for name, place in last.items():
        if name not in graph.outputs:
            freed[place].append(name)
    return freed
