"""Rules for ops with weights: convolutions and linear layers make channels and read them, norms act on each."""

import numpy as np

from convsmith.graph import Node
from convsmith.graph.call import Call
from convsmith.structure.channels.book import CHANNEL_RULES, NONE, Answer, Book, Channels, Ints, Seen, place

GROUPED = "{} reads them in groups with what is no channel that could go"


def _made(book: Book, node: Node, size: int, dim: int, out_dim: int, rows: int = 1) -> Channels | None:
    """New channels for `dim` of a weight, its bias too; of `rows` equal parts the same index goes together."""
    reason = book.why_not(node, node.call["weight"])
    if reason:
        book.refused.setdefault(node.module, reason)
        return None
    labels = book.make(size)
    book.tie(labels.reshape(rows, -1), "")
    if rows == 1 or dim == 0:
        book.cut(node, node.call["weight"], dim, labels, "filters")
    book.cut(node, node.call["bias"], 0, labels, "channels")
    return Channels(out_dim, labels)


def _axis(call: Call) -> int:
    return len(call.out) - len(call["weight"].shape) + 1


def _input(book: Book, node: Node, x: Channels | None, axis: int) -> Channels | None:
    """What a layer reads, if its channels are channels to the layer too; else they stay."""
    if x is not None and x.dim != axis:
        book.fix(x, f"{place(node)} slides over them, so each is seen by its neighbours")
        return None
    return x


@CHANNEL_RULES.register(*(f"aten.conv{n}d.{form}" for n in (1, 2, 3) for form in ("default", "padding")))
def convolution(book: Book, node: Node, seen: Seen) -> Answer:
    """Every filter makes a channel; a weight's columns read channels; groups go whole or lose equally many."""
    call = node.call
    x = _input(book, node, seen[0], _axis(call))
    for other in seen[1:]:
        book.fix(other, f"{place(node)} convolves with them")
    grouping = book.decided.setdefault(node.name, _grouping(call, x))
    if x is not None and grouping == "whole":
        return _by_groups(book, node, x)
    groups = call["groups"]
    if x is not None:
        table = x.labels.reshape(groups, -1)
        book.tie(table, GROUPED.format(place(node)))
        book.cut(node, call["weight"], 1, table[0], "columns")
    return _made(book, node, call["weight"].shape[0], 0, _axis(call), groups)


def _grouping(call: Call, x: Channels | None) -> str:
    """Groups go whole where that leaves the finer choice of widths, and where they make as many as they read."""
    out, per_group = call["weight"].shape[:2]
    groups = call["groups"]
    if groups == 1 or x is None:
        return "one" if groups == 1 else "equally"
    square = out == len(x.labels) and groups >= per_group
    return "whole" if per_group == 1 or square else "equally"


def _by_groups(book: Book, node: Node, x: Channels) -> Channels:
    """A depthwise convolution, or one whose groups go whole: what it makes goes with what it reads."""
    call = node.call
    per_group = call["weight"].shape[1]
    table = x.labels.reshape(-1, per_group)
    book.tie(table.T, GROUPED.format(place(node)))
    labels = np.repeat(x.labels, call["weight"].shape[0] // len(x.labels)) if per_group == 1 else x.labels
    book.cut(node, call["weight"], 0, labels, "channels")
    book.cut(node, call["bias"], 0, labels, "channels")
    return Channels(_axis(call), labels)


@CHANNEL_RULES.register("aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input")
def transposed(book: Book, node: Node, seen: Seen) -> Answer:
    """The same with the weight's first two dimensions swapped; in groups only where each has one channel."""
    call = node.call
    inputs, per_group = call["weight"].shape[:2]
    x = _input(book, node, seen[0], _axis(call))
    for other in seen[1:]:
        book.fix(other, f"{place(node)} convolves with them")
    if call["groups"] == 1:
        if x is not None:
            book.cut(node, call["weight"], 0, x.labels, "columns")
        return _made(book, node, per_group, 1, _axis(call))
    if x is not None and call["groups"] == inputs and per_group == 1:
        return _by_groups(book, node, x)
    book.fix(x, GROUPED.format(place(node)))
    book.refused.setdefault(node.module, "it is a transposed convolution of several groups")
    return None


@CHANNEL_RULES.register("aten.linear.default")
def linear(book: Book, node: Node, seen: Seen) -> Answer:
    """Rows make features, columns read them: behind a flattened map, one for each place of a channel's."""
    call = node.call
    last = len(call.input.shape) - 1
    for other in seen[1:]:
        book.fix(other, f"{place(node)} multiplies with them")
    x = seen[0]
    if x is not None and x.dim == last:
        book.cut(node, call["weight"], 1, x.labels, "columns")
    made = _made(book, node, call["weight"].shape[0], 0, len(call.out) - 1) if len(call["weight"].shape) == 2 else None
    if x is not None and x.dim != last:  # a layer along the map: channels keep to themselves, its features are no label
        book.fix(made, f"{place(node)} works along another dimension than channels")
        return x
    return made


@CHANNEL_RULES.register("aten.batch_norm.default", "aten.instance_norm.default")
def norm(book: Book, node: Node, seen: Seen) -> Answer:
    """Each channel by itself: its scale, shift and statistics go with it."""
    x, call = seen[0], node.call
    if x is None:
        return None
    if x.dim != 1:
        book.fix(x, f"{place(node)} takes statistics over them")
        return x
    for name in ("weight", "bias", "running_mean", "running_var"):
        book.cut(node, call[name], 0, x.labels, "channels")
    return x


@CHANNEL_RULES.register("aten.prelu.default")
def prelu(book: Book, node: Node, seen: Seen) -> Answer:
    """One slope for all, or one for each channel."""
    x, slopes = seen[0], node.call["weight"]
    if x is not None and slopes.shape[0] > 1:
        book.cut(node, slopes, 0, x.labels, "channels")
    return x


@CHANNEL_RULES.register("aten.group_norm.default")
def group_norm(book: Book, node: Node, seen: Seen) -> Answer:
    """Statistics are taken over groups: these go whole."""
    x, call = seen[0], node.call
    if x is None:
        return None
    if x.dim != 1:
        book.fix(x, f"{place(node)} takes statistics over them")
        return x
    table: Ints = x.labels.reshape(call["num_groups"], -1)
    if (table == NONE).any() or len(table) == 1:
        book.fix(x, f"{place(node)} takes statistics over all of a group")
    book.tie(table.T, f"{place(node)} takes statistics over them")
    for name in ("weight", "bias"):
        book.cut(node, call[name], 0, x.labels, "channels")
    return x
