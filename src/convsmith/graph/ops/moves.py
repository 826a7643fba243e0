"""Ops that move elements: padding, rolling, flipping, and reading at places that only the values tell."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from convsmith.graph.call import Answer, Call, Seen, dim_of, joining, numbers, unary
from convsmith.reach import Reach
from convsmith.reach.unions import union
from convsmith.reach.windows import Taps

Ints = NDArray[np.int64]


def _inside(index: Ints, size: int, mode: str) -> Ints:
    """Where a padded map reads: index -1 for a constant."""
    read: dict[str, Ints] = {
        "reflect": (size - 1) - np.abs((size - 1) - np.abs(index)),
        "circular": index % size,
        "replicate": index.clip(0, size - 1),
        "constant": np.where((index < 0) | (index >= size), -1, index),
    }
    return read[mode]


@unary("aten.pad.default", "aten.constant_pad_nd.default")
def pad(call: Call, x: Reach) -> Reach:
    """Constants or the map's own elements around (negative: a crop)."""
    return _padded(call, x, call["pad"], call.args.get("mode", "constant"))


def _padded(call: Call, x: Reach, amounts: Sequence[int], mode: str) -> Reach:
    """The amounts run from the last dimension backwards, two for each."""
    for place, before in enumerate(amounts[::2]):
        dim = len(x.shape) - 1 - place
        index = _inside(np.arange(call.out[dim]) - before, x.shape[dim], mode)
        x = x.select(dim, Taps(index[:, None], -before, -before))
    return x


@unary(*(f"aten.reflection_pad{n}d.default" for n in (1, 2, 3)))
def reflection_pad(call: Call, x: Reach) -> Reach:
    """The map mirrored at its borders."""
    return _padded(call, x, call["padding"], "reflect")


@unary(*(f"aten.replication_pad{n}d.default" for n in (1, 2, 3)))
def replication_pad(call: Call, x: Reach) -> Reach:
    """The map's borders repeated."""
    return _padded(call, x, call["padding"], "replicate")


@unary("aten.roll.default")
def roll(call: Call, x: Reach) -> Reach:
    """Indices move round; without dimensions they run through all elements in a line."""
    line = not call["dims"]
    dims = [0] if line else [dim_of(call, d) for d in call["dims"]]
    x = x.reshape((int(np.prod(x.shape)),)) if line else x
    for shift, dim in zip(numbers(call["shifts"], 1), dims, strict=True):
        size = x.shape[dim]
        x = x.select(dim, Taps.pick((np.arange(size)[:, None] - shift) % size))
    return x.reshape(call.out)


@unary("aten.flip.default")
def flip(call: Call, x: Reach) -> Reach:
    """Indices run backwards."""
    for dim in call["dims"]:
        x = x.select(dim, Taps.pick(np.arange(x.shape[dim])[::-1, None]))
    return x


@joining("aten.index.Tensor")
def index(call: Call, seen: Seen) -> Answer:
    """Each element is taken from anywhere along the indexed dimensions (a bound)."""
    x, *tables = seen
    if x is None or any(table is not None for table in tables):
        return anywhere(call, seen)
    places = [d for d, table in enumerate(call["indices"]) if table is not None]
    new = len(call.out) - len(x.shape) + len(places)
    if new != max(len(table.shape) for table in call["indices"] if table is not None):
        return anywhere(call, seen)  # a mask over several dimensions
    start = places[0] if places[-1] - places[0] == len(places) - 1 else 0  # apart: the new dimensions come first
    x = x.reduce(*places)
    for dim in reversed(places):
        x = x.drop(dim)
    for _ in range(new):
        x = x.insert(start)
    return x.expand(call.out).as_bound()


@joining("aten.index_select.default")
def index_select(call: Call, seen: Seen) -> Answer:
    """The same along one dimension."""
    x, table = seen
    if x is None or table is not None:
        return anywhere(call, seen)
    return x.reduce(dim_of(call, call["dim"])).expand(call.out).as_bound()


@joining(
    "aten.gather.default", "aten.take_along_dim.default", "aten.scatter.src", "aten.scatter_.src",
    "aten.scatter.value", "aten.scatter_.value", "aten.scatter_add.default", "aten.scatter_add_.default",
    "aten.masked_scatter.default", "aten.masked_scatter_.default",
    "aten.affine_grid_generator.default", "torchvision.roi_align.default", "torchvision.roi_pool.default",
)  # fmt: skip
def anywhere(call: Call, seen: Seen) -> Answer:
    """Values say where elements go: each sees all (a bound)."""
    return union([x.whole(call.out) for x in seen if x is not None], call.out).as_bound()


@joining("aten.index_put.default", "aten.index_put_.default")
def index_put(call: Call, seen: Seen) -> Answer:
    """What was there, or any of the values along the indexed dimensions (a bound): tables say which goes where."""
    (before, *tables), values = seen[:-1], seen[-1]
    dims = [d for d, table in enumerate(call["indices"]) if table is not None]
    lines = all(len(table.shape) == 1 for table in call["indices"] if table is not None)
    if any(table is not None for table in tables) or not lines or dims != list(range(dims[0], dims[-1] + 1)):
        return anywhere(call, seen)
    parts = [] if before is None else [before]
    if values is not None:
        parts.append(_spread(values, dims[0], len(dims), len(call.out)).expand(call.out))
    return union(parts, call.out).as_bound()


@joining(
    "aten.index_add.default", "aten.index_add_.default", "aten.index_copy.default", "aten.index_copy_.default",
)  # fmt: skip
def index_along(call: Call, seen: Seen) -> Answer:
    """What was there, or any of the values along one dimension (a bound)."""
    before, table, values = seen
    if table is not None:
        return anywhere(call, seen)
    parts = [] if before is None else [before]
    if values is not None:
        parts.append(values.reduce(dim_of(call, call["dim"])).expand(call.out))
    return union(parts, call.out).as_bound()


@joining("aten.slice_scatter.default")
def slice_scatter(call: Call, seen: Seen) -> Answer:
    """The second tensor at every step-th index from start, the first elsewhere."""
    size = call.out[dim_of(call, call["dim"])]
    start, stop, step = slice(call.args.get("start"), call.args.get("end"), call.args.get("step", 1)).indices(size)
    return _replaced(call, seen, range(start, stop, step))


@joining("aten.select_scatter.default")
def select_scatter(call: Call, seen: Seen) -> Answer:
    """The second tensor at one index of a dimension, which it lacks, the first elsewhere."""
    before, values = seen
    dim, index = dim_of(call, call["dim"]), call["index"]
    values = None if values is None else values.insert(dim)
    start = index % call.out[dim]
    return _replaced(call, (before, values), range(start, start + 1))


def _replaced(call: Call, seen: Seen, places: range) -> Answer:
    """The second tensor at these places of a dimension, the first elsewhere."""
    (before, values), dim = seen, dim_of(call, call["dim"])
    every = np.arange(call.out[dim])
    index = np.full(len(every), -1)
    index[places.start : places.stop : places.step] = np.arange(len(places))
    parts = []
    if values is not None:
        ahead, pace = -places.start / places.step, 1 / places.step
        parts.append(values.select(dim, Taps(index[:, None], ahead, ahead, pace)))
    if before is not None:
        parts.append(before.select(dim, Taps(np.where(index < 0, every, -1)[:, None])))
    return union(parts, call.out)


def _spread(values: Reach, first: int, indexed: int, dims: int) -> Reach:
    """Values in a line along what several dimensions are indexed by, laid out on all of them."""
    while len(values.shape) < dims - indexed + 1:
        values = values.insert(0)
    values = values.reduce(first)
    for _ in range(indexed - 1):
        values = values.insert(first)
    return values


@joining("aten.grid_sampler.default", "aten.grid_sampler_2d.default", "aten.grid_sampler_3d.default")
def grid_sample(call: Call, seen: Seen) -> Answer:
    """Each element is taken from anywhere on its channel's map (a bound), and sees its place in the grid."""
    x, grid = seen
    parts = [] if x is None else [x.reduce(*range(2, len(x.shape)))]
    if grid is not None:
        last = len(grid.shape) - 1
        parts.append(grid.reduce(last).permute([0, last, *range(1, last)]))
    return union(parts, call.out).as_bound()


@unary("aten.max_unpool2d.default", "aten.max_unpool3d.default")
def max_unpool(call: Call, x: Reach) -> Reach:
    """Each element comes from anywhere on its channel's map, or is zero (a bound)."""
    return x.reduce(*range(2, len(x.shape))).expand(call.out).as_bound()


@unary("aten.tril.default", "aten.triu.default")
def triangle(call: Call, x: Reach) -> Reach:
    """Elements stay, or become zero (a bound)."""
    return x.as_bound()


@unary("aten.one_hot.default")
def one_hot(call: Call, x: Reach) -> Reach:
    """Each number as a line of zeros with a one."""
    return x.insert(len(x.shape)).expand(call.out)
