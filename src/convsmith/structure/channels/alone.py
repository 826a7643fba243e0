"""Rules for ops that leave the channels of their first tensor as they are, or mix what goes along a dimension."""

from collections.abc import Iterable, Sequence

from convsmith.graph import Node
from convsmith.graph.call import dim_of
from convsmith.graph.ops import ACTIVATIONS
from convsmith.graph.ops.elementwise import ALONE
from convsmith.structure.channels.book import CHANNEL_RULES, Answer, Book, Channels, Seen, place, several

_POOLS = (
    *(f"aten.{name}_pool{n}d.default" for name in ("max", "avg", "adaptive_avg", "adaptive_max") for n in (1, 2, 3)),
    *(f"aten.max_pool{n}d_with_indices.default" for n in (1, 2, 3)),
)
_RESIZES = (
    *(f"aten.upsample_{name}.{form}" for name in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d",
      "trilinear3d", "bicubic2d") for form in ("default", "vec")),
    *(f"aten._upsample_nearest_exact{n}d.{form}" for n in (1, 2, 3) for form in ("default", "vec")),
    *(f"aten._upsample_{name}2d_aa.{form}" for name in ("bilinear", "bicubic") for form in ("default", "vec")),
)  # fmt: skip


@CHANNEL_RULES.register(*(ACTIVATIONS - {"aten.prelu.default"}), *ALONE, "aten.type_as.default", "aten.to.other")
def elementwise(book: Book, node: Node, seen: Seen) -> Answer:
    """Nothing moves."""
    return seen[0]


def mixing(book: Book, node: Node, x: Channels | None, dims: Iterable[int]) -> Channels | None:
    """What mixes dimensions keeps channels that lie along another; along one of these they stay."""
    if x is not None and x.dim in dims:
        book.fix(x, f"{place(node)} mixes them")
    return x


@CHANNEL_RULES.register(*_POOLS)
def pool(book: Book, node: Node, seen: Seen) -> Answer:
    """Maps shrink, channels stay."""
    axes = int(node.call.op[node.call.op.index("d.") - 1 : node.call.op.index("d.")]) if "d." in node.call.op else 2
    return several(mixing(book, node, seen[0], _last(node, axes)), node)


@CHANNEL_RULES.register(*_RESIZES)
def resize(book: Book, node: Node, seen: Seen) -> Answer:
    """The same for maps that grow."""
    return mixing(book, node, seen[0], range(2, len(node.call.out)))


def _last(node: Node, count: int) -> Sequence[int]:
    return range(len(node.call.input.shape) - count, len(node.call.input.shape))


@CHANNEL_RULES.register(
    "aten.softmax.int", "aten._softmax.default", "aten.log_softmax.int", "aten._log_softmax.default",
    "aten.cumsum.default",
)  # fmt: skip
def softmax(book: Book, node: Node, seen: Seen) -> Answer:
    """One dimension mixes."""
    return mixing(book, node, seen[0], [dim_of(node.call, node.call["dim"])])


@CHANNEL_RULES.register("aten.layer_norm.default", "aten.rms_norm.default")
def layer_norm(book: Book, node: Node, seen: Seen) -> Answer:
    """The last dimensions mix: their statistics would change."""
    return mixing(book, node, seen[0], _last(node, len(node.call["normalized_shape"])))


@CHANNEL_RULES.register(
    "aten.mean.dim", "aten.sum.dim_IntList", "aten.amax.default", "aten.amin.default", "aten.max.dim", "aten.min.dim",
    "aten.std.correction", "aten.var.correction", "aten.std.dim", "aten.var.dim", "aten.norm.ScalarOpt_dim",
    "aten.logsumexp.default", "aten.prod.dim_int",
)  # fmt: skip
def reduce(book: Book, node: Node, seen: Seen) -> Answer:
    """Dimensions go, or become 1; channels along one of them mix."""
    x, dims, call = seen[0], node.call.args.get("dim"), node.call
    if x is None:
        return None
    listed = [dims] if isinstance(dims, int) else list(dims or range(len(call.input.shape)))
    gone = {dim_of(call, d) for d in listed}
    if x.dim in gone:
        mixing(book, node, x, gone)
        return None
    kept = len(call.out) == len(call.input.shape)
    return several(x if kept else Channels(x.dim - sum(d < x.dim for d in gone), x.labels), node)
