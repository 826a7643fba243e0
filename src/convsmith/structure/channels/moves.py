"""Rules for ops that give elements another shape or place: views, permutations, runs of a dimension, copies."""

from collections.abc import Sequence
from math import prod

import numpy as np

from convsmith.graph import Node
from convsmith.graph.call import dim_of
from convsmith.structure.channels.book import CHANNEL_RULES, NONE, Answer, Book, Channels, Ints, Seen, place

EQUAL_PARTS = "{} takes parts of them that are no equal parts of the whole"


@CHANNEL_RULES.register(
    "aten.view.default", "aten.reshape.default", "aten.flatten.using_ints", "aten.unflatten.int",
    "aten._unsafe_view.default", "aten.squeeze.dim", "aten.squeeze.dims", "aten.squeeze.default",
    "aten.ravel.default", "aten.view_as.default", "aten.reshape_as.default", "aten.unsqueeze.default",
)  # fmt: skip
def reshape(book: Book, node: Node, seen: Seen) -> Answer:
    """Channels spread over several dimensions are cut along the last: what stands at one index of it goes together."""
    x = seen[0]
    return None if x is None else _reshaped(book, node, x, node.call.input.shape, node.call.out)


def _reshaped(book: Book, node: Node, x: Channels, before: Sequence[int], after: Sequence[int]) -> Channels | None:
    wanted = int(book.decided.get(node.name, 0))
    first, last, to, end = _block(x.dim, before, after, wanted)
    line = np.tile(np.repeat(x.labels, prod(before[x.dim + 1 : last])), prod(before[first : x.dim]))
    table = line.reshape(after[to:end])
    varying = [d for d, size in enumerate(table.shape) if size > 1 and (table != table.take([0], d)).any()]
    if not varying and node.name not in book.decided:
        book.fix(x, f"{place(node)} leaves one channel")
        return None
    dim = int(book.decided.setdefault(node.name, to + varying[-1] if varying else 0)) - to
    rows = np.unique(np.moveaxis(table, dim, -1).reshape(-1, table.shape[dim]), axis=0)
    if len(rows) > 1:
        book.tie(rows, f"{place(node)} lays them out with what is no channel that could go")
    return Channels(to + dim, rows[0])


def _block(dim: int, before: Sequence[int], after: Sequence[int], wanted: int) -> tuple[int, int, int, int]:
    """The fewest dimensions around `dim` that make as many elements as others after, up to `wanted`: both as ranges."""
    starts: dict[int, int] = {}
    for i in range(len(after) + 1):
        starts.setdefault(prod(after[:i]), i)
    ends = {prod(after[:i]): i for i in range(len(after) + 1)}  # dimensions of size 1 are in the block
    first = max(i for i in range(dim + 1) if prod(before[:i]) in starts)
    last = min(i for i in range(dim + 1, len(before) + 1) if ends.get(prod(before[:i]), 0) > wanted)
    return first, last, starts[prod(before[:first])], ends[prod(before[:last])]


@CHANNEL_RULES.register("aten.permute.default")
def permute(book: Book, node: Node, seen: Seen) -> Answer:
    """Dimensions in a new order."""
    return _placed(seen[0], [dim_of(node.call, d) for d in node.call["dims"]])


@CHANNEL_RULES.register("aten.transpose.int", "aten.swapaxes.default", "aten.swapdims.default", "aten.t.default")
def transpose(book: Book, node: Node, seen: Seen) -> Answer:
    """Two dimensions change places: the last two where none are named."""
    order = list(range(len(node.call.input.shape)))
    first, second = [dim_of(node.call, d) for name, d in node.call.args.items() if name != "self"] or order[-2:]
    order[first], order[second] = order[second], order[first]
    return _placed(seen[0], order)


def _placed(x: Channels | None, order: Sequence[int]) -> Channels | None:
    return None if x is None else Channels(order.index(x.dim), x.labels)


@CHANNEL_RULES.register("aten.expand.default", "aten.broadcast_to.default", "aten.expand_as.default")
def expand(book: Book, node: Node, seen: Seen) -> Answer:
    """Dimensions of size 1 as often as asked for."""
    x = seen[0]
    return None if x is None else Channels(x.dim + len(node.call.out) - len(node.call.input.shape), x.labels)


@CHANNEL_RULES.register("aten.repeat.default", "aten.tile.default")
def repeat(book: Book, node: Node, seen: Seen) -> Answer:
    """The whole tensor several times along each dimension."""
    x = expand(book, node, seen)
    if not isinstance(x, Channels):
        return None
    return Channels(x.dim, np.tile(x.labels, node.call.out[x.dim] // len(x.labels)))


@CHANNEL_RULES.register("aten.slice.Tensor", "aten.narrow.default")
def slice_(book: Book, node: Node, seen: Seen) -> Answer:
    """A run of a dimension: of channels, the whole or one of equal parts."""
    x, call = seen[0], node.call
    dim = dim_of(call, call["dim"])
    if x is None or x.dim != dim:
        return x
    start, size, step = call["start"] or 0, call.out[dim], call.args.get("step", 1)
    start = max(start + len(x.labels), 0) if start < 0 else start
    if step != 1 or not _equal(len(x.labels), start, size):
        book.fix(x, EQUAL_PARTS.format(place(node)))
    elif size < len(x.labels):
        book.tie(x.labels.reshape(-1, size), EQUAL_PARTS.format(place(node)))
    return Channels(dim, x.labels[start : start + size * step : step])


def _equal(whole: int, start: int, size: int) -> bool:
    return size > 0 and whole % size == 0 and start % size == 0


@CHANNEL_RULES.register(
    "aten.split.Tensor", "aten.split_with_sizes.default", "aten.split.sizes", "aten.chunk.default",
    "aten.unsafe_chunk.default", "aten.unsafe_split.Tensor", "aten.tensor_split.sections", "aten.tensor_split.indices",
)  # fmt: skip
def split(book: Book, node: Node, seen: Seen) -> Answer:
    """Runs of one dimension; equal runs of channels stay equal: the same index of each goes together."""
    x, dim = seen[0], dim_of(node.call, node.call["dim"])
    sizes = [shape[dim] for shape in node.call.outs]
    if x is None or x.dim != dim:
        return (x,) * len(sizes)
    if len(set(sizes)) > 1:
        book.fix(x, EQUAL_PARTS.format(place(node)))
    else:
        book.tie(x.labels.reshape(len(sizes), -1), EQUAL_PARTS.format(place(node)))
    return tuple(Channels(dim, part) for part in np.split(x.labels, np.cumsum(sizes)[:-1]))


@CHANNEL_RULES.register("aten.select.int", "aten.unbind.int")
def select(book: Book, node: Node, seen: Seen) -> Answer:
    """One index of a dimension, or every one by itself; the dimension goes."""
    x, dim = seen[0], dim_of(node.call, node.call["dim"])
    if x is not None and x.dim == dim:
        book.fix(x, f"{place(node)} takes single ones out")
        return (None,) * len(node.call.outs)
    rest = None if x is None else Channels(x.dim - (x.dim > dim), x.labels)
    return (rest,) * len(node.call.outs) if node.call.op == "aten.unbind.int" else rest


@CHANNEL_RULES.register("aten.glu.default")
def glu(book: Book, node: Node, seen: Seen) -> Answer:
    """Half of a dimension times the other half: of channels, the two of one index are one."""
    x, dim = seen[0], dim_of(node.call, node.call["dim"])
    if x is None or x.dim != dim:
        return x
    first, second = np.split(x.labels, 2)
    book.join(first, second, f"{place(node)} joins them with what is no channel that could go")
    return Channels(dim, first)


@CHANNEL_RULES.register("aten.pad.default", "aten.constant_pad_nd.default")
def pad(book: Book, node: Node, seen: Seen) -> Answer:
    """Around a map nothing happens to channels; constants beside channels are none that could go."""
    x, call = seen[0], node.call
    if x is None or (place_of := len(call.input.shape) - 1 - x.dim) >= len(call["pad"]) // 2:
        return x
    before, after = call["pad"][2 * place_of : 2 * place_of + 2]
    if min(before, after) < 0 or call.args.get("mode", "constant") != "constant":
        book.fix(x, f"{place(node)} mixes them")
        return None
    return Channels(x.dim, np.pad(x.labels, (before, after), constant_values=NONE))


@CHANNEL_RULES.register(*(f"aten.{name}_pad{n}d.default" for name in ("reflection", "replication") for n in (1, 2, 3)))
def mirror(book: Book, node: Node, seen: Seen) -> Answer:
    """A map continued at its borders."""
    x, call = seen[0], node.call
    if x is not None and x.dim >= len(call.input.shape) - len(call["padding"]) // 2:
        book.fix(x, f"{place(node)} mixes them")
        return None
    return x


@CHANNEL_RULES.register("aten.flip.default", "aten.roll.default")
def turn(book: Book, node: Node, seen: Seen) -> Answer:
    """Indices of a map run backwards or round."""
    x, call = seen[0], node.call
    if x is not None and x.dim in [dim_of(call, d) for d in call["dims"] or range(len(call.out))]:
        book.fix(x, f"{place(node)} moves them")
        return None
    return x


@CHANNEL_RULES.register("aten.pixel_shuffle.default")
def pixel_shuffle(book: Book, node: Node, seen: Seen) -> Answer:
    """The channels that become pixels of one map go together."""
    x = seen[0]
    if x is None or x.dim != len(node.call.out) - 3:
        book.fix(x, f"{place(node)} mixes them")
        return None
    table: Ints = x.labels.reshape(-1, node.call["upscale_factor"] ** 2).T
    book.tie(table, f"{place(node)} lays them out with what is no channel that could go")
    return Channels(x.dim, table[0])


@CHANNEL_RULES.register("aten.pixel_unshuffle.default")
def pixel_unshuffle(book: Book, node: Node, seen: Seen) -> Answer:
    """A channel's pixels are channels that go together."""
    x = seen[0]
    if x is None or x.dim != len(node.call.out) - 3:
        book.fix(x, f"{place(node)} mixes them")
        return None
    return Channels(x.dim, np.repeat(x.labels, node.call["downscale_factor"] ** 2))


@CHANNEL_RULES.register("aten.channel_shuffle.default")
def channel_shuffle(book: Book, node: Node, seen: Seen) -> Answer:
    """Channels as a table of groups, read by columns: as many go of every group."""
    x = seen[0]
    if x is None or x.dim != 1:
        book.fix(x, f"{place(node)} mixes them")
        return None
    table: Ints = x.labels.reshape(node.call["groups"], -1)
    book.tie(table, f"{place(node)} lays them out with what is no channel that could go")
    return Channels(1, table.T.reshape(-1))
