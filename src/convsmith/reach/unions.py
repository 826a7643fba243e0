"""How branches join: element by element, or one behind the other."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import or_

import numpy as np

from convsmith.reach import labels as lb
from convsmith.reach.reach import PLACES, Reach

Axes = tuple[int | None, ...]


def union(parts: Sequence[Reach], shape: Sequence[int]) -> Reach:
    """Element by element, what any of several reaches of one source sees, each broadcast to `shape`.

    >>> x = Reach.source((3, 8, 8))
    >>> union([x, x.reduce(2, 3)], x.shape).extent().window
    (8, 8)
    """
    if all(part is parts[0] for part in parts) and parts[0].shape == tuple(shape):
        return parts[0]
    if all(part.uniform and part.shape == tuple(shape) and part.axes == parts[0].axes for part in parts):
        return _uniform(parts)
    parts = [part.without_holes() for part in parts]
    axes = _common_axes(parts, shape)
    parts = [part.expand(shape, axes) for part in parts]
    sets, windows = (np.stack(np.broadcast_arrays(*x), axis=-1) for x in _labels(parts))
    return _stacked(parts).united(tuple(shape), axes, sets, windows)


def _uniform(parts: Sequence[Reach]) -> Reach:
    """The same of reaches laid out alike in which all elements agree: the common case, a shortcut."""
    stacked, row = _stacked(parts), np.arange(len(parts))[None]
    windows = tuple(w.unite(row) for w in stacked.windows)
    return stacked._with(sets=(reduce(or_, stacked.sets),), windows=windows)


def concatenate(parts: Sequence[Reach], dim: int) -> Reach:
    """Reaches of one source one behind the other along `dim`; an axis of the source becomes places there."""
    first, sizes = parts[0], [part.shape[dim] for part in parts]
    out = (*first.shape[:dim], sum(sizes), *first.shape[dim + 1 :])
    if first.axes[dim] is None and all(part.uniform and part.axes == first.axes for part in parts):
        return _uniform_in_line(parts, dim, out)
    parts = [part.as_units(dim) for part in parts]
    shape = parts[0].shape
    own: int | None = PLACES if any(part.axes[dim] == PLACES for part in parts) else None
    axes = list(_common_axes(parts, shape))
    axes[dim] = own
    parts = [part.expand(part.shape, axes) for part in parts]
    sets, windows = (lb.in_line(x, sizes, dim)[..., None] for x in _labels(parts))
    return _stacked(parts).united(out, tuple(axes), sets, windows)


def _uniform_in_line(parts: Sequence[Reach], dim: int, shape: tuple[int, ...]) -> Reach:
    """The same of reaches in each of which all elements agree: the common case, a shortcut."""
    stacked, line = _stacked(parts), [-1 if d == dim else 1 for d in range(len(shape))]
    kinds = {bits: i for i, bits in enumerate(dict.fromkeys(stacked.sets))}
    sizes = [part.shape[dim] for part in parts]
    set_of = np.repeat([kinds[bits] for bits in stacked.sets], sizes).reshape(line)
    window_of = np.repeat(np.arange(len(parts)), sizes).reshape(line)
    joined = stacked._with(shape=shape, sets=tuple(kinds), set_of=lb.compact(set_of), window_of=window_of)
    return joined._distinct()


def _labels(parts: Sequence[Reach]) -> tuple[list[lb.Ints], list[lb.Ints]]:
    """Labels into the tables of all parts, one below the other."""
    sets = lb.stacked([part.set_of for part in parts], [len(part.sets) for part in parts])
    return sets, lb.stacked([part.window_of for part in parts], [part.rows for part in parts])


def _stacked(parts: Sequence[Reach]) -> Reach:
    first, *others = parts
    return replace(
        first,
        sets=tuple(bits for part in parts for bits in part.sets),
        windows=tuple(w.stack([part.windows[a] for part in others]) for a, w in enumerate(first.windows)),
        gated=any(part.gated for part in parts),
        bound=any(part.bound for part in parts),
    )


def _common_axes(parts: Sequence[Reach], shape: Sequence[int]) -> Axes:
    """What each dimension of a join is: a source axis where all that fill the dimension walk along it."""
    axes = [_common_axis(parts, dim - len(shape), size) for dim, size in enumerate(shape)]
    return tuple(PLACES if axis is not None and axis >= 0 and axes.count(axis) > 1 else axis for axis in axes)


def _common_axis(parts: Sequence[Reach], dim: int, size: int) -> int | None:
    inside = [part for part in parts if len(part.shape) >= -dim]
    kinds = {part.axes[dim] for part in inside if part.shape[dim] == size} or {part.axes[dim] for part in inside}
    walked = [kind for kind in kinds if kind is not None]
    if len(kinds) == 1 or (size == 1 and walked):
        return max(kinds, key=lambda kind: -2 if kind is None else kind)
    return PLACES if walked else None
