"""Files whose batch is fixed: read for one image, and proved to be the same net."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
from onnx import NodeProto

from convsmith.errors import CaptureError, ConvsmithError
from convsmith.graph.graph import Graph
from convsmith.graph.onnx.facts import Fact

SHAPED = ("Reshape", "Expand")  # ops that are told a shape, the batch in it


def for_batch(node: NodeProto, facts: dict[str, Fact], fewer: int) -> dict[str, Fact]:
    """What a node reads, a constant shape for `fewer` times fewer images."""
    if fewer == 1 or node.op_type not in SHAPED or len(node.input) < 2 or node.input[0] == node.input[1]:
        return facts
    x, shape = facts[node.input[0]], facts[node.input[1]]
    if x.operand.own or x.open or shape.value is None or not shape.value.size:
        return facts
    sizes = shape.value.ravel().copy()
    place = _batch_in(sizes.tolist(), x.operand.shape, fewer, node.op_type)
    if place is None:
        return facts
    sizes[place] //= fewer
    return {**facts, node.input[1]: replace(shape, value=sizes.astype(np.int64))}


def _batch_in(sizes: list[int], given: tuple[int, ...], fewer: int, op: str) -> int | None:
    """The place of a shape that the batch is in; none where the shape fits as it is."""
    if op == "Reshape" and -1 not in sizes and 0 not in sizes and prod(sizes) != fewer * prod(given):
        return None
    exact = [place for place, size in enumerate(sizes) if size == fewer]
    whole = [place for place, size in enumerate(sizes) if size > 0 and size % fewer == 0]
    return exact[0] if exact and exact[0] == 0 else next(iter(whole[:1] if whole[:1] == [0] else exact), None)


def check_same(whole: Graph, single: Graph, batch: int, path: Path) -> None:
    """Raises ConvsmithError unless one image takes a `batch`-th of what all take, call by call."""
    alike = len(whole.nodes) == len(single.nodes) and all(
        a.call.op == b.call.op
        and a.macs in (batch * b.macs, b.macs * (not b.kind))
        and _sizes(a.call.outs, b.call.outs, batch)
        for a, b in zip(whole.nodes, single.nodes, strict=True)
    )
    if not alike:
        raise _tied(batch, path)


@contextmanager
def tied_to(batch: int, path: Path) -> Iterator[None]:
    """Say of a file that cannot be read for one image what keeps it from that."""
    try:
        yield
    except ConvsmithError as error:
        raise _tied(batch, path) from error


def _tied(batch: int, path: Path) -> CaptureError:
    return CaptureError(
        f"{path}: its batch is fixed at {batch}, and its ops fit no other; export it with batch 1, or an open one."
    )


def _sizes(many: tuple[tuple[int, ...], ...], one: tuple[tuple[int, ...], ...], batch: int) -> bool:
    return all(prod(a) in (batch * prod(b), prod(b)) for a, b in zip(many, one, strict=True))
