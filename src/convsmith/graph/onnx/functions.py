"""A file's own functions, which call each other: how many nodes they make, told before any is written out."""

from collections.abc import Iterable
from pathlib import Path

from onnx import ModelProto, NodeProto

from convsmith.errors import FileError

NODES = 1_000_000  # of one net, its functions written out

Name = tuple[str, str, str]


def check_size(model: ModelProto, path: Path) -> None:
    """Raises ConvsmithError where the file's functions call themselves, or make more nodes than any net has."""
    bodies = {(f.domain, f.name, f.overload): list(_all(f.node)) for f in model.functions}
    sizes: dict[Name, int] = {}
    while ready := [n for n, body in bodies.items() if n not in sizes and _calls(body, bodies) <= sizes.keys()]:
        for name in ready:
            sizes[name] = _size(bodies[name], sizes)
    if len(sizes) < len(bodies):
        raise FileError(f"{path}: its functions call themselves; write the file anew.")
    if _size(list(_all(model.graph.node)), sizes) > NODES:
        raise FileError(f"{path}: its functions make more than {NODES:,} nodes; write a smaller net.")


def _calls(body: list[NodeProto], bodies: Iterable[Name]) -> set[Name]:
    return {_name(node) for node in body} & set(bodies)


def _size(body: list[NodeProto], sizes: dict[Name, int]) -> int:
    return min(sum(sizes.get(_name(node), 1) for node in body), NODES + 1)


def _name(node: NodeProto) -> Name:
    return node.domain, node.op_type, node.overload


def _all(nodes: Iterable[NodeProto]) -> Iterable[NodeProto]:
    """Nodes, and those of their inner graphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _all(attribute.g.node)
            for graph in attribute.graphs:
                yield from _all(graph.node)
