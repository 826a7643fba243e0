"""Translations of ops that move elements or reduce dimensions."""

from itertools import pairwise

import numpy as np

from convsmith.graph.call import Operand
from convsmith.graph.node import GETITEM
from convsmith.graph.onnx.op import Declined, Emit, Misfit, Op, Shape, translates

RUNS = 1 << 10  # slices that one node may become
_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
_REDUCTIONS = {"ReduceMean": "mean.dim", "ReduceSum": "sum.dim_IntList", "ReduceMax": "amax.default",
               "ReduceMin": "amin.default", "ReduceL2": "linalg_vector_norm.default",
               "ReduceL1": "linalg_vector_norm.default", "ReduceLogSumExp": "logsumexp.default"}  # fmt: skip


@translates("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(op: Op, emit: Emit) -> Operand:
    """The same elements under another shape."""
    return emit("aten.reshape.default", op.out, self=op[0], shape=list(op.out))


@translates("Transpose")
def transpose(op: Op, emit: Emit) -> Operand:
    """Dimensions in a new order, reversed where none is given."""
    dims = list(op.attributes.get("perm", reversed(range(len(op.out)))))
    return emit("aten.permute.default", op.out, self=op[0], dims=dims)


@translates("Expand")
def expand(op: Op, emit: Emit) -> Operand:
    """Broadcast to a shape; often the tensor's own."""
    return op[0] if op.out == op[0].shape else emit("aten.expand.default", op.out, self=op[0], size=list(op.out))


@translates("Tile")
def repeat(op: Op, emit: Emit) -> Operand:
    """The whole tensor, so often along each dimension."""
    return emit("aten.repeat.default", op.out, self=op[0], repeats=op.setting("repeats", 1))


@translates("Concat")
def concatenate(op: Op, emit: Emit) -> Operand:
    """Tensors one behind the other."""
    tensors = [op[place] for place in range(len(op.inputs))]
    (dim,) = op.dims([op.attributes["axis"]])
    return emit("aten.cat.default", op.out, tensors=tensors, dim=dim)


@translates("Split")
def split(op: Op, emit: Emit) -> list[Operand]:
    """Runs of one dimension, as long as the outputs are."""
    (dim,) = op.dims([op.attributes.get("axis", 0)])
    sizes = [shape[dim] for shape in op.outs]
    runs = emit("aten.split_with_sizes.default", *op.outs, self=op[0], split_sizes=sizes, dim=dim)
    return [emit(GETITEM, shape, self=runs, index=index) for index, shape in enumerate(op.outs)]


@translates("SplitToSequence")
def split_to_sequence(op: Op, emit: Emit) -> Operand:
    """The same, kept as a list that `SequenceAt` takes from."""
    (dim,) = op.dims([op.attributes.get("axis", 0)])
    given, size = op.value(1), op[0].shape[dim]
    if given is None or (not given.ndim and size > RUNS * int(given)):
        raise Declined
    sizes = [int(n) for n in given] if given.ndim else [int(given)] * (size // int(given))
    sizes += [size - sum(sizes)] if sum(sizes) < size else []
    outs = [(*op[0].shape[:dim], length, *op[0].shape[dim + 1 :]) for length in sizes]
    return emit("aten.split_with_sizes.default", *outs, self=op[0], split_sizes=sizes, dim=dim)


@translates("SequenceAt")
def sequence_at(op: Op, emit: Emit) -> Operand:
    """One tensor of a list."""
    place = op.value(1)
    if place is None or place < 0:
        raise Declined
    return emit(GETITEM, op.out, self=op[0], index=int(place))


@translates("Slice")
def slice_(op: Op, emit: Emit) -> Operand:
    """A call per dimension that is cut."""
    x = op[0]
    starts, ends = op.setting("starts", 1) or [], op.setting("ends", 2) or []
    dims = op.dims(op.setting("axes", 3) or range(len(starts)))
    steps = op.setting("steps", 4) or [1] * len(starts)
    for dim, start, stop, step in zip(dims, starts, ends, steps, strict=True):
        places = range(x.shape[dim])[start:stop:step]
        if step < 0:
            x = emit("aten.flip.default", x.shape, self=x, dims=[dim])
            end = x.shape[dim] - 1
            places = range(end - places.start, end - places.stop, -step)
        x = _cut(x, dim, places, emit)
    return x


def _cut(x: Operand, dim: int, places: range, emit: Emit) -> Operand:
    out = (*x.shape[:dim], len(places), *x.shape[dim + 1 :])
    if out == x.shape:
        return x
    start, end, step = places.start, places.stop, places.step
    return emit("aten.slice.Tensor", out, self=x, dim=dim, start=start, end=end, step=step)


@translates("Gather")
def gather(op: Op, emit: Emit) -> Operand:
    """One index, or a constant table of them: runs of neighbours one behind the other, under the table's shape."""
    x, index = op[0], op.value(1)
    if index is None or x.own:
        raise Declined
    (dim,) = op.dims([op.attributes.get("axis", 0)])
    if index.ndim == 0:
        return emit("aten.select.int", op.out, self=x, dim=dim, index=int(index) % x.shape[dim])
    places = [int(place) for place in index.ravel() % x.shape[dim]]
    cuts = [0, *(np.flatnonzero(np.diff(places) != 1) + 1), len(places)]
    if len(cuts) > RUNS:
        raise Declined
    runs = [_cut(x, dim, range(places[a], places[b - 1] + 1), emit) for a, b in pairwise(cuts)]
    line = (*x.shape[:dim], len(places), *x.shape[dim + 1 :])
    row = runs[0] if len(runs) == 1 else emit("aten.cat.default", line, tensors=runs, dim=dim)
    return row if index.ndim == 1 else emit("aten.reshape.default", op.out, self=row, shape=list(op.out))


@translates("Pad")
def pad(op: Op, emit: Emit) -> Operand:
    """ONNX lists what comes before every dimension, then what comes behind; torch pairs, from the last backwards."""
    pads = op.setting("pads", 1) or []
    dims = op.dims(op.setting("axes", 3) or range(len(pads) // 2))
    sides = dict(zip(dims, zip(pads[: len(dims)], pads[len(dims) :], strict=True), strict=True))
    padded = [dim for dim, side in sides.items() if any(side)]
    flat = [n for dim in reversed(range(min(padded, default=len(op.out)), len(op.out))) for n in sides.get(dim, (0, 0))]
    mode = op.attributes.get("mode", "constant")
    if mode != "constant" and any(max(sides[dim]) >= op[0].shape[dim] + (mode != "reflect") for dim in padded):
        raise Misfit(f"it pads more than there is to {mode}")
    return emit("aten.pad.default", op.out, self=op[0], pad=flat, mode=_MODES[mode]) if flat else op[0]


@translates(*_REDUCTIONS)
def reduction(op: Op, emit: Emit) -> Operand:
    """Over the given dimensions, all where none is given."""
    dims = op.setting("axes", 1) or []
    if not dims and op.attributes.get("noop_with_empty_axes", 0):
        return op[0]
    dims = sorted(op.dims(dims or range(len(op[0].shape))))
    keep = bool(op.attributes.get("keepdims", 1))
    return emit(f"aten.{_REDUCTIONS[op.type]}", op.out, self=op[0], dim=dims, keepdim=keep)


@translates("DepthToSpace")
def depth_to_space(op: Op, emit: Emit) -> Operand:
    """Channels become blocks of pixels; torch's order of channels is the mode CRD."""
    x, side = op[0], op.attributes["blocksize"]
    if op.attributes.get("mode", "DCR") == "CRD":
        return emit("aten.pixel_shuffle.default", op.out, self=x, upscale_factor=side)
    batch, channels, height, width = x.shape
    cut = (batch, side, side, channels // side**2, height, width)
    return _rearranged(x, cut, [0, 3, 4, 1, 5, 2], op.out, emit)


@translates("SpaceToDepth")
def space_to_depth(op: Op, emit: Emit) -> Operand:
    """Blocks of pixels become channels, the place in the block first."""
    x, side = op[0], op.attributes["blocksize"]
    batch, channels, height, width = x.shape
    cut = (batch, channels, height // side, side, width // side, side)
    return _rearranged(x, cut, [0, 3, 5, 1, 2, 4], op.out, emit)


def _rearranged(x: Operand, cut: Shape, dims: list[int], out: Shape, emit: Emit) -> Operand:
    x = emit("aten.reshape.default", cut, self=x, shape=list(cut))
    x = emit("aten.permute.default", tuple(cut[dim] for dim in dims), self=x, dims=dims)
    return emit("aten.reshape.default", out, self=x, shape=list(out))
