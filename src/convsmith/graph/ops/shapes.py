"""Ops that give the same elements another shape: views, permutations, copies along dimensions, joins and splits."""

from collections.abc import Sequence

import numpy as np

from convsmith.graph.call import Answer, Call, Operand, Seen, dim_of, joining, shaped, unary
from convsmith.reach import Reach
from convsmith.reach.unions import concatenate
from convsmith.reach.windows import Taps


@shaped("aten.view_as.default", "aten.reshape_as.default")
@unary(
    "aten.view.default", "aten.reshape.default", "aten.flatten.using_ints", "aten.unflatten.int",
    "aten._unsafe_view.default", "aten.squeeze.dim", "aten.squeeze.dims",
    "aten.squeeze.default", "aten.ravel.default", "aten.atleast_1d.default",
)  # fmt: skip
def reshape(call: Call, x: Reach) -> Answer:
    """The same elements under another shape."""
    return x.reshape(call.out)


@unary("aten.unsqueeze.default")
def unsqueeze(call: Call, x: Reach) -> Reach:
    """A dimension of size 1 more."""
    return x.insert(call["dim"] % len(call.out))


@unary("aten.permute.default")
def permute(call: Call, x: Reach) -> Reach:
    """Dimensions in a new order."""
    return x.permute([dim_of(call, d) for d in call["dims"]])


@unary("aten.transpose.int", "aten.swapaxes.default", "aten.swapdims.default", "aten.t.default", "aten.numpy_T.default",
       "aten.mT.default", "aten.adjoint.default")  # fmt: skip
def transpose(call: Call, x: Reach) -> Reach:
    """Two dimensions change places: the last two where none are named."""
    order = list(range(len(x.shape)))
    first, second = [dim_of(call, d) for name, d in call.args.items() if name != "self"] or order[-2:]
    order[first], order[second] = order[second], order[first]
    return x.permute(order)


@unary("aten.movedim.int", "aten.movedim.intlist", "aten.moveaxis.int", "aten.moveaxis.intlist")
def movedim(call: Call, x: Reach) -> Reach:
    """Some dimensions go to given places, the others keep their order."""
    source, target = (np.atleast_1d(call[name]) % len(x.shape) for name in ("source", "destination"))
    placed = dict(zip(target.tolist(), source.tolist(), strict=True))
    rest = iter(d for d in range(len(x.shape)) if d not in placed.values())
    return x.permute([placed[d] if d in placed else next(rest) for d in range(len(x.shape))])


@unary("aten.slice.Tensor", "aten.narrow.default")
def slice_(call: Call, x: Reach) -> Reach:
    """Every step-th index from start."""
    dim = dim_of(call, call["dim"])
    start = call["start"] or 0
    start = max(start + x.shape[dim], 0) if start < 0 else start
    return x.select(dim, Taps.window(x.shape[dim], start, call.out[dim], call.args.get("step", 1)))


@unary("aten.select.int")
def select(call: Call, x: Reach) -> Reach:
    """One index of a dimension, which goes."""
    dim = dim_of(call, call["dim"])
    return x.select(dim, Taps.window(x.shape[dim], call["index"] % x.shape[dim], 1)).drop(dim)


@unary("aten.unbind.int")
def unbind(call: Call, x: Reach) -> Answer:
    """Every index of a dimension by itself."""
    dim = dim_of(call, call["dim"])
    return tuple(x.select(dim, Taps.window(x.shape[dim], i, 1)).drop(dim) for i in range(x.shape[dim]))


@unary(
    "aten.split.Tensor", "aten.split_with_sizes.default", "aten.split.sizes", "aten.chunk.default",
    "aten.unsafe_chunk.default", "aten.unsafe_split.Tensor", "aten.tensor_split.sections", "aten.tensor_split.indices",
)  # fmt: skip
def split(call: Call, x: Reach) -> Answer:
    """Runs of one dimension."""
    dim = dim_of(call, call["dim"])
    starts = np.cumsum([0, *(shape[dim] for shape in call.outs)])
    return tuple(
        x.select(dim, Taps.window(x.shape[dim], int(start), shape[dim]))
        for start, shape in zip(starts, call.outs, strict=False)
    )


@unary("aten.glu.default")
def glu(call: Call, x: Reach) -> Answer:
    """Half of a dimension times the other half, element by element."""
    dim = dim_of(call, call["dim"])
    half = np.arange(call.out[dim])
    return x.select(dim, Taps.pick(np.stack([half, half + len(half)], axis=1)))


@joining("aten.cat.default")
def cat(call: Call, seen: Seen) -> Answer:
    """Operands one behind the other; one that sees nothing keeps its place."""
    return concatenate(_all(call.operands, seen), call["dim"] % len(call.out))


@joining("aten.stack.default")
def stack(call: Call, seen: Seen) -> Answer:
    """Operands side by side along a new dimension."""
    dim = call["dim"] % len(call.out)
    return concatenate([x.insert(dim) for x in _all(call.operands, seen)], dim)


def _all(operands: Sequence[Operand], seen: Seen) -> list[Reach]:
    like = next(x for x in seen if x is not None)
    pairs = zip(operands, seen, strict=True)
    return [like.nothing(operand.shape) if x is None else x for operand, x in pairs if 0 not in operand.shape]


@shaped("aten.expand_as.default")
@unary("aten.expand.default", "aten.broadcast_to.default")
def expand(call: Call, x: Reach) -> Reach:
    """Dimensions of size 1 as often as asked for."""
    return x.expand(call.out)


@unary("aten.repeat.default", "aten.tile.default")
def repeat(call: Call, x: Reach) -> Reach:
    """The whole tensor several times along each dimension."""
    for _ in range(len(call.out) - len(x.shape)):
        x = x.insert(0)
    for dim, size in enumerate(call.out):
        x = x.tile(dim, size // x.shape[dim])
    return x


@unary("aten.repeat_interleave.self_int")
def repeat_interleave(call: Call, x: Reach) -> Reach:
    """Every index several times in a row; of all elements in a line without a dimension."""
    if call["dim"] is None:
        return x.reshape((int(np.prod(x.shape)),)).repeat(0, call["repeats"])
    dim = dim_of(call, call["dim"])
    return x.select(dim, Taps.pick((np.arange(call.out[dim]) // call["repeats"])[:, None], 1 / call["repeats"]))


@unary("aten.pixel_shuffle.default")
def pixel_shuffle(call: Call, x: Reach) -> Reach:
    """Channels become the pixels of a larger map."""
    *batch, channels, height, width = call.out
    r, n = call["upscale_factor"], len(batch)
    x = x.reshape((*batch, channels, r, r, height // r, width // r))
    return x.permute([*range(n), n, n + 3, n + 1, n + 4, n + 2]).reshape(call.out)


@unary("aten.pixel_unshuffle.default")
def pixel_unshuffle(call: Call, x: Reach) -> Reach:
    """The pixels of a map become channels of a smaller one."""
    *batch, channels, height, width = call.input.shape
    r, n = call["downscale_factor"], len(batch)
    x = x.reshape((*batch, channels, height // r, r, width // r, r))
    return x.permute([*range(n), n, n + 2, n + 4, n + 1, n + 3]).reshape(call.out).as_channels(n)


@unary("aten.channel_shuffle.default")
def channel_shuffle(call: Call, x: Reach) -> Reach:
    """Channels as a table of groups, read by columns."""
    order = np.arange(x.shape[1]).reshape(call["groups"], -1).T
    return x.as_channels(1).select(1, Taps.pick(order.reshape(-1, 1)))
