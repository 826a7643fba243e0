"""Find what a stage repeats: units, the modules that can be copied or taken out as one."""

from collections.abc import Iterator
from dataclasses import dataclass

from convsmith.graph import Graph, Node
from convsmith.graph.replay import Detour
from convsmith.plan import Refusal
from convsmith.structure.stages import StageNodes, Stages, effective_kernel
from convsmith.text import times


@dataclass(frozen=True)
class Unit:
    """Neighbouring children of one nn.Sequential, or one module, with one tensor in and one out.

    `convs` names its counted convolutions in the graph, `kernels` are theirs; shapes are without the batch.
    """

    modules: tuple[str, ...]
    convs: tuple[str, ...]
    kernels: tuple[tuple[int, ...], ...]
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    params: int
    macs: int

    @property
    def uniform(self) -> bool:
        """Whether the unit can be copied or taken out without changing any shape."""
        return self.in_shape == self.out_shape

    @property
    def shapes(self) -> str:
        """How its shape changes, in words."""
        return f"its shape changes from {times(self.in_shape)} to {times(self.out_shape)}"


def find_units(graph: Graph, stages: Stages) -> tuple[list[list[Unit]], list[Refusal]]:
    """The units of every stage in order, and the convolutions that belong to none, with the reason."""
    units, refusals = [], []
    for stage in stages.stages:
        here: list[Unit] = []
        taken: set[str] = set()
        for conv in stage.counted:
            if conv.name in taken:
                continue
            unit = _unit(graph, stage, conv)
            if isinstance(unit, Refusal):
                refusals.append(unit)
                continue
            taken.update(node.name for node in calls_inside(graph, unit.modules))
            here.append(unit)
        units.append(here)
    return units, refusals


def _unit(graph: Graph, stage: StageNodes, conv: Node) -> Unit | Refusal:
    for path in _ancestors(conv.module):
        modules = _candidate(graph, stage, conv, path)
        if modules:
            reason = _not_editable(graph, modules)
            return Refusal(conv.module, reason) if reason else _describe(graph, stage, modules)
    return Refusal(conv.module, "it is in no module with one tensor in and one out that could be moved as a whole")


def _ancestors(path: str) -> Iterator[str]:
    """The modules around a module, the nearest first, the network itself last."""
    while path:
        path = path.rpartition(".")[0]
        yield path


def _candidate(graph: Graph, stage: StageNodes, conv: Node, path: str) -> tuple[str, ...] | None:
    """The module at `path`, or a run of its children, if that is the smallest thing around `conv` that can move."""
    inside = [n for n in stage.counted if _within(n.module, path)]
    divisible = len(inside) > 1 and len({graph.before(n) for n in inside}) > 1
    alone = path and _closed(graph, (path,)) and not _leaves_stage(graph, stage, (path,))
    if path in graph.sequences and (divisible or not alone):
        return _run(graph, stage, conv, path)
    return (path,) if alone else None


def _run(graph: Graph, stage: StageNodes, conv: Node, path: str) -> tuple[str, ...] | None:
    """From the child that holds `conv` up to the next child with a counted convolution or another map."""
    children = [f"{path}.{name}" if path else name for name in graph.sequences[path]]
    start = next(i for i, child in enumerate(children) if _within(conv.module, child))
    run = [children[start]]
    for child in children[start + 1 :]:
        inside = calls_inside(graph, (child,))
        if any(node in stage.counted or node not in stage.nodes for node in inside):
            break
        run.append(child)
    modules = tuple(run)
    return modules if _closed(graph, modules) and not _leaves_stage(graph, stage, modules) else None


def _within(path: str, ancestor: str) -> bool:
    return not ancestor or path == ancestor or path.startswith(f"{ancestor}.")


def calls_inside(graph: Graph, modules: tuple[str, ...]) -> list[Node]:
    """The calls that modules, or those within them, make."""
    return [node for node in graph.nodes if any(_within(node.module, path) for path in modules)]


def _leaves_stage(graph: Graph, stage: StageNodes, modules: tuple[str, ...]) -> bool:
    """Whether counted convolutions of other stages are inside."""
    inside = calls_inside(graph, modules)
    spatial = [node for node in inside if node.kind == "conv" and node in stage.counted]
    return inside[-1] not in stage.nodes or not spatial


def _closed(graph: Graph, modules: tuple[str, ...]) -> bool:
    """Whether all data of the net enters through one tensor and leaves through one."""
    inside = calls_inside(graph, modules)
    names = {node.name for node in inside}
    entries = {s for node in inside for s in graph.sources(node)} - names
    used = {s for node in graph.nodes if node.name not in names for s in graph.sources(node)} | set(graph.outputs)
    exits = names & used
    return len(entries) == 1 and entries <= set(graph.cuts) and len(exits) == 1 and exits <= set(graph.cuts)


def detour(graph: Graph, modules: tuple[str, ...]) -> Detour:
    """How a run goes around a unit that is `movable`."""
    inside = calls_inside(graph, modules)
    names = frozenset(node.name for node in inside)
    (entry,) = {name for node in inside for name in graph.sources(node)} - names
    outside = {name for node in graph.nodes if node.name not in names for name in graph.sources(node)}
    (exit_,) = names & (outside | set(graph.outputs))
    return Detour(names, entry, exit_)


def movable(graph: Graph, modules: tuple[str, ...]) -> Unit | str:
    """The unit that these modules are, if all its data comes and goes through one tensor each, or why not."""
    inside = calls_inside(graph, modules)
    if not inside:
        return "it makes no call"
    if not _closed(graph, modules):
        return "more than one tensor goes in or out of it"
    if reason := _not_editable(graph, modules):
        return reason
    shapes = tuple(inside[0].call.input.shape[1:]), tuple(inside[-1].call.out[1:])
    params, macs = (sum(getattr(node, name) for node in inside) for name in ("params", "macs"))
    return Unit(modules, (), (), *shapes, params, macs)


def _not_editable(graph: Graph, modules: tuple[str, ...]) -> str | None:
    for path, count in graph.calls.items():
        if count > 1 and any(_within(path, module) for module in modules):
            return f"{path} is called {count} times"
    tied = sorted(p for p in graph.shared if any(_within(p, module) for module in modules))
    return f"{tied[0]} shares its weights with another module" if tied else None


def _describe(graph: Graph, stage: StageNodes, modules: tuple[str, ...]) -> Unit:
    inside = calls_inside(graph, modules)
    counted = [node for node in stage.counted if node in inside]
    return Unit(
        modules,
        tuple(node.name for node in counted),
        tuple(effective_kernel(node) for node in counted),
        tuple(inside[0].call.input.shape[1:]),
        tuple(inside[-1].call.out[1:]),
        sum(node.params for node in inside),
        sum(node.macs for node in inside),
    )
