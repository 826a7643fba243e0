"""Rules for ops that join tensors: sums and choices, products and gates, concatenations and stacks."""

from collections.abc import Sequence

import numpy as np

from convsmith.graph import Node
from convsmith.graph.call import Operand
from convsmith.graph.ops.elementwise import SUMS
from convsmith.structure.channels.book import CHANNEL_RULES, NONE, Answer, Book, Channels, Ints, Seen, place, stay


@CHANNEL_RULES.register(*SUMS, "aten.copy_.default")
def add(book: Book, node: Node, seen: Seen) -> Answer:
    """Element by element: channels that meet are one."""
    joined = _joined(book, node, seen)
    if joined is not None:
        arrays = [x.labels for x in seen if x is not None]
        book.summed.update(label for x in arrays if not np.array_equal(x, arrays[0]) for label in [*x, *arrays[0]])
    return joined


@CHANNEL_RULES.register("aten.mul.Tensor", "aten.mul_.Tensor", "aten.addcmul.default", "aten.addcmul_.default")
def multiply(book: Book, node: Node, seen: Seen) -> Answer:
    """The same; a factor that has one value for a whole map is a gate."""
    pairs = [(x, operand) for x, operand in zip(seen, node.call.operands, strict=True) if x is not None]
    small = [x for x, operand in pairs if _flat(x, operand)]
    if 0 < len(small) < len(pairs):
        book.gates.update(label for x in small for label in x.labels.tolist())
    return _joined(book, node, seen)


def _flat(x: Channels, operand: Operand) -> bool:
    return all(size == 1 for dim, size in enumerate(operand.shape) if dim not in (0, x.dim))


def _joined(book: Book, node: Node, seen: Seen) -> Channels | None:
    out = node.call.out
    laid = [None if x is None else Channels(x.dim + len(out) - len(operand.shape), x.labels)
            for x, operand in zip(seen, node.call.operands, strict=True)]  # fmt: skip
    for i, x in enumerate(laid):
        if x is not None and len(x.labels) < out[x.dim]:  # one for all channels of another
            book.fix(x, f"{place(node)} joins it with every channel of another tensor")
            laid[i] = None
    dims = {x.dim for x in laid if x is not None}
    if not dims:
        return None
    if len(dims) > 1:
        stay(book, seen, f"{place(node)} multiplies every one of them with every other of another tensor")
        return None
    (dim,) = dims
    first = next(x for x in laid if x is not None)
    for x, operand in zip(laid, node.call.operands, strict=True):
        if x is None:
            _meet(book, node, operand, dim - len(out) + len(operand.shape), first.labels)
        else:
            book.join(first.labels, x.labels, f"{place(node)} joins them with what is no channel that could go")
    return first


def _meet(book: Book, node: Node, operand: Operand, dim: int, labels: Ints) -> None:
    """A tensor without channels: broadcast over them, a tensor of the model's that has an entry for each, or fixed."""
    if dim < 0 or operand.shape[dim] == 1:
        return
    if operand.own:
        book.cut(node, operand, dim, labels, "channels")
    else:
        book.fix(Channels(dim, labels), f"{place(node)} joins them with {operand.name}, which has no channels to cut")


@CHANNEL_RULES.register("aten.cat.default")
def cat(book: Book, node: Node, seen: Seen) -> Answer:
    """Channels one behind the other, or joined where maps are laid side by side."""
    dim = node.call["dim"] % len(node.call.out)
    parts = [(x, operand) for x, operand in zip(seen, node.call.operands, strict=True) if 0 not in operand.shape]
    dims = {x.dim for x, _ in parts if x is not None}
    if not dims:
        return None
    if len(dims) > 1:
        stay(book, seen, f"{place(node)} mixes them")
        return None
    if dims != {dim}:
        return _joined(book, node, seen)
    rows = [np.full(operand.shape[dim], NONE) if x is None else x.labels for x, operand in parts]
    return Channels(dim, np.concatenate(rows))


@CHANNEL_RULES.register("aten.stack.default")
def stack(book: Book, node: Node, seen: Seen) -> Answer:
    """Tensors side by side along a new dimension: channels that meet are one."""
    dim = node.call["dim"] % len(node.call.out)
    channel_dims = _same_dims(seen)
    if not channel_dims:
        stay(book, seen, f"{place(node)} joins them with what is no channel that could go")
        return None
    for x in channel_dims[1:]:
        book.join(channel_dims[0].labels, x.labels, f"{place(node)} joins them")
    return Channels(channel_dims[0].dim + (channel_dims[0].dim >= dim), channel_dims[0].labels)


def _same_dims(seen: Seen) -> Sequence[Channels]:
    known = [x for x in seen if x is not None]
    return known if len(known) == len(seen) and len({x.dim for x in known}) == 1 else []
