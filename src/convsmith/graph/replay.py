"""Run a captured net's calls again on real batches, any stretch of them, with modules of one's own in some places."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convsmith.errors import CaptureError
from convsmith.graph.arguments import schema_of, tensors
from convsmith.graph.call import Operand
from convsmith.graph.constants import copied, same_memory
from convsmith.graph.graph import Graph
from convsmith.graph.node import GETITEM, Node
from convsmith.graph.ops.writes import OVERWRITTEN

Tensors = dict[str, Any]  # by the names of a graph: what is alive at one point of a run


@dataclass(frozen=True)
class Detour:
    """Calls that are left out of a run: what goes in at `entry` comes out as `exit`."""

    inside: frozenset[str]
    entry: str
    exit: str


class Replay:
    """The calls of `graph`, captured of `model` or of one with the same modules, on the weights that `model` has.

    The graph must be captured for the batch size that is run. A stretch costs what its calls cost, so that a net
    changed in one place is run from there on. Calls whose sizes depend on values are left out, and those of `detours`.

    >>> from convsmith.graph.capture import capture
    >>> net, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), torch.rand(2, 3, 8, 8)
    >>> replay = Replay(net, capture(net, x, batch=2))
    >>> alive = replay.start(x)
    >>> replay.run(alive, 0, 2)
    >>> torch.equal(alive[replay.graph.outputs[0]], net(x))
    True
    """

    def __init__(self, model: nn.Module, graph: Graph, detours: Sequence[Detour] = ()) -> None:
        self.graph = graph
        self._left_out = {name: detour for detour in detours for name in detour.inside}
        held = dict(model.named_parameters()) | dict(model.named_buffers())
        self._own = dict(graph.constants) | held
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._calls = [_callable(node) for node in graph.nodes]
        self._tables = _written_tables(graph, held)
        self._freed = _last_reads(graph)

    def start(self, *inputs: Tensor) -> Tensors:
        """What is alive before the first call: the inputs, and tables that calls write into, made anew."""
        tables = copied({name: self._own[name] for name in self._tables})
        return dict(zip((x.name for x in self.graph.inputs), inputs, strict=True)) | tables

    def run(self, alive: Tensors, first: int, stop: int, modules: Mapping[str, nn.Module] | None = None) -> None:
        """Run the calls `first` up to but not including `stop`, and let go of what no later call reads.

        modules: by the name of a node, what to run on its input in the call's place.
        """
        with torch.no_grad():
            for place in range(first, stop):
                if self.graph.nodes[place].loose:
                    continue
                self._step(alive, place, modules or {})
                for name in self._freed[place]:
                    alive.pop(name, None)

    def ahead(self, alive: Tensors, name: str, modules: Mapping[str, nn.Module] | None = None) -> Any:
        """A tensor that calls still to come make of what is alive, which stays as it is."""
        if name in alive:
            return alive[name]
        wanted, leading = {name}, list[int]()
        for place, node in reversed(list(enumerate(self.graph.nodes))):
            if node.name in wanted and node.name not in alive:
                wanted.update(self.graph.sources(node))
                leading.append(place)
        aside = deepcopy({each: x for each, x in alive.items() if each in wanted or each in self._tables})
        with torch.no_grad():
            for place in reversed(leading):
                self._step(aside, place, modules or {})
        return aside[name]

    def _step(self, alive: Tensors, place: int, modules: Mapping[str, nn.Module]) -> None:
        node = self.graph.nodes[place]
        if node.name in self._left_out:
            detour = self._left_out[node.name]
            if detour.exit not in alive:
                alive[detour.exit] = alive[detour.entry]
        elif node.name in modules:
            alive[node.name] = _in_its_type(modules[node.name], alive[node.call.input.name])
        else:
            alive[node.name] = self._call(place, node, alive)

    def _call(self, place: int, node: Node, alive: Tensors) -> Any:
        args = {name: self._value(arg, alive) for name, arg in node.call.args.items()}
        if node.call.op == GETITEM:
            return args["self"][args["index"]]
        if self._calls[place] is None:  # written into through another view: the memory says what it holds
            return args["self"]
        schema = self._calls[place]._schema.arguments
        answer = self._calls[place](
            *(args[a.name] for a in schema if a.name in args and not a.kwarg_only),
            **{a.name: args[a.name] for a in schema if a.name in args and a.kwarg_only},
        )
        if answer is None:  # it changes the tensors of a list
            return [x for name in schema_of(self._calls[place]).written for x in tensors(args[name])]
        return answer

    def _value(self, arg: Any, alive: Tensors) -> Any:
        if isinstance(arg, Operand):
            return self._own[arg.name] if arg.own and arg.name not in self._tables else alive[arg.name]
        if isinstance(arg, list):
            return [self._value(item, alive) for item in arg]
        return self._device if isinstance(arg, torch.device) else arg


def _in_its_type(module: nn.Module, x: Tensor) -> Any:
    """A module's answer where autocast has changed the type of what it reads."""
    like = next((p.dtype for p in module.parameters() if p.is_floating_point()), x.dtype)
    return module(x) if like == x.dtype else module(x.to(like)).to(x.dtype)


def _callable(node: Node) -> Any:
    """The op that a node calls; None for what only stands for a tensor, or is not run again."""
    if node.call.op in (GETITEM, OVERWRITTEN) or node.call.op.endswith(" through a view") or node.loose:
        return None
    space, name, overload = node.call.op.split(".")
    return getattr(getattr(getattr(torch.ops, space), name), overload)


def _written_tables(graph: Graph, held: Mapping[str, Tensor]) -> set[str]:
    """The net's tables that calls write into, with all in the same memory.

    Raises ConvsmithError where such a table lives on from run to run: its parameter or buffer.
    """
    written: list[Tensor] = []
    for node in graph.nodes:
        for name in _writes(node):
            x = graph.constants.get(name)
            if x is None or any(same_memory(x, kept) for kept in held.values()):
                raise CaptureError(
                    f"{node.module or 'The model'} writes into a table of its own ({node.call.op}), so its calls "
                    "cannot be run again batch by batch; use --method svd, which needs no data."
                )
            written.append(x)
    return {name for name, table in graph.constants.items() if any(same_memory(table, x) for x in written)}


def _writes(node: Node) -> list[str]:
    """The tables of the net's own that a call writes into."""
    op = _callable(node)
    if op is None:
        return []
    given = (node.call.args.get(name) for name in schema_of(op).written)
    operands = (x for value in given for x in (value if isinstance(value, list) else [value]))
    return [x.name for x in operands if isinstance(x, Operand) and x.own]


def _last_reads(graph: Graph) -> list[list[str]]:
    """For each call the tensors that it is the last to read; ends stay."""
    last = {name: place for place, node in enumerate(graph.nodes) for name in (node.name, *graph.sources(node))}
    freed: list[list[str]] = [[] for _ in graph.nodes]
    for name, place in last.items():
        if name not in graph.ends:
            freed[place].append(name)
    return freed
