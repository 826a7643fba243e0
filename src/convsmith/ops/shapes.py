"""Ops that move elements or reduce dimensions: views, permutations, slices, joins, splits, means, rolls."""

from functools import reduce

import numpy as np

from convsmith.call import Answer, Call, Operand, Seen, dim_of, joining, numbers, unary
from convsmith.reach import Reach
from convsmith.windows import Taps


@unary(
    "aten.view.default", "aten.reshape.default", "aten.flatten.using_ints", "aten.unflatten.int",
    "aten._unsafe_view.default", "aten.squeeze.dim", "aten.squeeze.dims", "aten.unsqueeze.default",
)  # fmt: skip
def reshape(call: Call, x: Reach) -> Answer:
    """The same elements under another shape; a batch dimension that takes part is beyond this rule."""
    return x.reshape(call.out[1:]) if call.out[0] == call.input.shape[0] else None


@unary("aten.permute.default")
def permute(call: Call, x: Reach) -> Answer:
    """Dimensions in a new order."""
    order = [dim_of(call, d) for d in call["dims"]]
    return x.permute(order[1:]) if order[0] == -1 else None


@unary("aten.transpose.int")
def transpose(call: Call, x: Reach) -> Answer:
    """Two dimensions change places."""
    order = list(range(len(x.axes)))
    first, second = dim_of(call, call["dim0"]), dim_of(call, call["dim1"])
    if min(first, second) < 0:
        return None
    order[first], order[second] = order[second], order[first]
    return x.permute(order)


@unary("aten.slice.Tensor")
def slice_(call: Call, x: Reach) -> Answer:
    """Every step-th index from start."""
    dim = dim_of(call, call["dim"])
    if dim < 0:
        return x if call.out == call.input.shape else None
    start = call["start"] or 0
    start = max(start + x.shape[dim], 0) if start < 0 else start
    return x.select(dim, Taps.window(x.shape[dim], start, call.out[dim + 1], call["step"]))


@unary("aten.pad.default", "aten.constant_pad_nd.default")
def pad(call: Call, x: Reach) -> Answer:
    """Constants around (negative: a crop); the pad list runs from the last dimension backwards."""
    if call.args.get("mode", "constant") != "constant":
        return None
    for place, before in enumerate(call["pad"][::2]):
        dim = len(x.axes) - 1 - place
        x = x.select(dim, Taps.window(x.shape[dim], -before, call.out[dim + 1]))
    return x


@joining("aten.cat.default")
def concatenate(call: Call, seen: Seen) -> Answer:
    """Operands one behind the other; one that sees nothing keeps its place."""
    like = next(x for x in seen if x is not None)
    dim = dim_of(call, call["dim"])
    if dim < 0:
        return None
    parts = [x if x is not None else _blank(like, operand, dim) for operand, x in zip(call.operands, seen, strict=True)]
    return reduce(lambda a, b: a.concatenate(b, dim), parts)


def _blank(like: Reach, operand: Operand, dim: int) -> Reach:
    units = [size for size, axis in zip(operand.shape[1:], like.axes, strict=True) if axis is None]
    blank, size = like.nothing(units), like.shape[dim]
    return blank if like.axes[dim] is None else blank.select(dim, Taps.window(size, size, operand.shape[dim + 1]))


@unary("aten.split.Tensor", "aten.split_with_sizes.default", "aten.chunk.default")
def split(call: Call, x: Reach) -> Answer:
    """Runs of one dimension."""
    dim = dim_of(call, call["dim"])
    if dim < 0:
        return None
    starts = np.cumsum([0, *(shape[dim + 1] for shape in call.outs)])
    return tuple(
        x.select(dim, Taps.window(x.shape[dim], int(start), shape[dim + 1]))
        for start, shape in zip(starts, call.outs, strict=False)
    )


@unary("aten.mean.dim", "aten.sum.dim_IntList", "aten.amax.default")
def reduction(call: Call, x: Reach) -> Answer:
    """One element that sees the whole of each reduced dimension; no dimensions mean all, the batch among them."""
    dims = sorted((dim_of(call, d) for d in numbers(call["dim"] or (), 1)), reverse=True)
    if not dims or dims[-1] < 0:
        return None
    for dim in dims:
        x = x.select(dim, Taps.everything(x.shape[dim]))
        x = x if call["keepdim"] else x.drop(dim)
    return x


@unary("aten.roll.default")
def roll(call: Call, x: Reach) -> Answer:
    """Indices move round; without dimensions they run through all, the batch among them."""
    dims = [dim_of(call, d) for d in call["dims"]]
    if not dims or min(dims) < 0:
        return None
    for shift, dim in zip(numbers(call["shifts"], 1), dims, strict=True):
        size = x.shape[dim]
        x = x.select(dim, Taps.pick((np.arange(size)[:, None] - shift) % size))
    return x
