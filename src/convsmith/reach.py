"""Receptive-field arithmetic: which source channels, and which source window, every element of a tensor depends on.

A dimension of a tensor either walks along an axis of the source (its *axis*) or only tells elements apart (a *unit*
dimension: channels, groups, heads). Elements that differ in units only share tables of distinct sets and windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from convsmith.windows import NOTHING, Taps, Windows

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Extent:
    """What a whole tensor sees of the source: the largest window (free: without borders), channels on average."""

    window: tuple[int, ...]
    window_free: tuple[int, ...]
    channels: float
    gated: bool = False

    @property
    def volume(self) -> float:
        """3DRF = channels x height x width (Wang et al., CIKM 2021)."""
        return self.channels * prod(self.window)


@dataclass(frozen=True, eq=False)
class Reach:
    """The reach of one tensor (batch dimension left out).

    `axes[d]` is the source axis that dimension d walks along, None for a unit dimension. `set_of` and `window_of` have
    the shape of the unit dimensions and point into `sets` (rows, source channels) and `windows` (one table per axis).

    >>> x = Reach.source((3, 8, 8))
    >>> y = x.select(1, Taps.slide(8, kernel=3, stride=1, padding=1)).select(2, Taps.slide(8, 3, 2, 1))
    >>> y.shape, y.extent()
    ((3, 8, 4), Extent(window=(3, 3), window_free=(3, 3), channels=1.0, gated=False))
    """

    axes: tuple[int | None, ...]
    sets: Bools
    set_of: Ints
    windows: tuple[Windows, ...]
    window_of: Ints
    gated: bool = False  # somewhere on the way a gate (squeeze-and-excitation and its kin) brought global context in

    @classmethod
    def source(cls, shape: Sequence[int]) -> Self:
        """The source itself: (channels, *map); every element sees itself."""
        channels, *sizes = shape
        axes = (None, *range(len(sizes)))
        windows = tuple(Windows.identity(size) for size in sizes)
        return cls(axes, np.eye(channels, dtype=np.bool_), np.arange(channels), windows, np.zeros(channels, np.int64))

    def nothing(self, units: Sequence[int]) -> Self:
        """Elements of unit shape `units` along this tensor's axes that see nothing: padding, constants."""
        windows = tuple(w.empty() for w in self.windows)
        zeros = np.zeros(tuple(units), np.int64)
        return replace(
            self, sets=np.zeros((1, self.sets.shape[1]), np.bool_), set_of=zeros, windows=windows, window_of=zeros
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape without the batch dimension."""
        units = iter(self.set_of.shape)
        return tuple(next(units) if axis is None else self.windows[axis].positions for axis in self.axes)

    def unit(self, dim: int) -> int:
        """Where dimension `dim` stands among the unit dimensions."""
        return sum(axis is None for axis in self.axes[:dim])

    def select(self, dim: int, taps: Taps) -> Self:
        """Index j of `dim` becomes the union over the elements that `taps` lists for j."""
        axis = self.axes[dim]
        if axis is not None:
            windows = tuple(w.select(taps) if a == axis else w for a, w in enumerate(self.windows))
            return replace(self, windows=windows)
        unit = self.unit(dim)
        sets, set_of = _unite(self.sets, _tapped(self.set_of, unit, taps, len(self.sets)))
        rows, window_of = _combinations(
            _tapped(self.window_of, unit, taps, self.windows[0].rows if self.windows else 1)
        )
        windows = tuple(w.unite(rows) for w in self.windows)
        return replace(self, sets=sets, set_of=set_of, windows=windows, window_of=window_of)

    def repeat(self, dim: int, times: int) -> Self:
        """Every index of unit dimension `dim`, `times` times in a row."""
        unit = self.unit(dim)
        return self._relabel(lambda labels: labels.repeat(times, axis=unit))

    def permute(self, order: Sequence[int]) -> Self:
        """Dimensions in a new order."""
        units = [self.unit(d) for d in order if self.axes[d] is None]
        axes = tuple(self.axes[d] for d in order)
        return replace(self._relabel(lambda labels: labels.transpose(units)), axes=axes)

    def reshape(self, shape: Sequence[int]) -> Self:
        """The same elements in row-major order; map dimensions that are cut or merged become units."""
        new, axes, here = tuple(shape), [], self
        for old_dims, new_dims in _matching_groups(self.shape, new):
            if len(old_dims) == len(new_dims) == 1:
                axes.append(here.axes[old_dims[0]])
            else:
                for dim in old_dims:
                    here = here.as_units(dim)
                axes += [None] * len(new_dims)
        units = [size for size, axis in zip(new, axes, strict=True) if axis is None]
        return replace(here._relabel(lambda labels: labels.reshape(units)), axes=tuple(axes))

    def as_units(self, dim: int) -> Self:
        """The map dimension `dim` as a unit dimension: each position with a window of its own."""
        axis = self.axes[dim]
        if axis is None:
            return self
        size, unit = self.windows[axis].positions, self.unit(dim)
        axes = tuple(None if d == dim else a for d, a in enumerate(self.axes))
        windows = tuple(w.flatten() if a == axis else w.repeat(size) for a, w in enumerate(self.windows))
        shape = [1] * (self.set_of.ndim + 1)
        shape[unit] = size
        window_of = np.expand_dims(self.window_of, unit) * size + np.arange(size).reshape(shape)
        set_of = np.expand_dims(self.set_of, unit).repeat(size, axis=unit)
        return replace(self, axes=axes, windows=windows, window_of=window_of, set_of=set_of)

    def drop(self, dim: int) -> Self:
        """Leave out dimension `dim`, of size 1."""
        axes = tuple(a for d, a in enumerate(self.axes) if d != dim)
        unit = self.unit(dim)
        here = self if self.axes[dim] is not None else self._relabel(lambda labels: labels.squeeze(unit))
        return replace(here, axes=axes)

    def insert(self, dim: int) -> Self:
        """A new unit dimension of size 1 at `dim`."""
        unit = self.unit(dim)
        axes = (*self.axes[:dim], None, *self.axes[dim:])
        return replace(self._relabel(lambda labels: np.expand_dims(labels, unit)), axes=axes)

    def expand(self, like: Self) -> Self:
        """Broadcast to the dimensions of `like`, from the right."""
        here = self
        for _ in range(len(like.axes) - len(here.axes)):
            here = here.insert(0)
        for dim, (axis, wanted) in enumerate(zip(here.axes, like.axes, strict=True)):
            if axis != wanted and here.shape[dim] == 1:
                here = here.drop(dim)._walk(dim, wanted)
        units = [like.shape[d] if here.shape[d] == 1 else here.shape[d] for d, a in enumerate(here.axes) if a is None]
        sizes = {a: like.shape[d] for d, a in enumerate(like.axes) if a is not None}
        windows = tuple(w.broadcast(sizes.get(a, 1)) for a, w in enumerate(here.windows))
        return replace(here._relabel(lambda labels: np.broadcast_to(labels, units)), windows=windows)

    def _walk(self, dim: int, axis: int | None) -> Self:
        if axis is None:
            return self.insert(dim)
        return replace(self, axes=(*self.axes[:dim], axis, *self.axes[dim:]))

    def join(self, other: Self) -> Self:
        """Element by element, the union of two reaches of one shape."""
        a, b = self, other
        if a.axes != b.axes:
            for dim in range(len(a.axes)):
                a, b = a.as_units(dim), b.as_units(dim)
        sets, set_of = _unite(*_side_by_side(a.sets, b.sets, a.set_of, b.set_of))
        pairs = np.stack([a.window_of, b.window_of + (a.windows[0].rows if a.windows else 1)], axis=-1)
        rows, window_of = _combinations(pairs)
        windows = tuple(w.stack(v).unite(rows) for w, v in zip(a.windows, b.windows, strict=True))
        gated = a.gated or b.gated
        return replace(a, sets=sets, set_of=set_of, windows=windows, window_of=window_of, gated=gated)

    def concatenate(self, other: Self, dim: int) -> Self:
        """`other` behind this tensor along `dim`; along a map axis each channel keeps the union of both sets."""
        axis, a, b = self.axes[dim], self, other
        if axis is None and a.axes == b.axes:
            unit = a.unit(dim)
            shift = a.windows[0].rows if a.windows else 1
            return replace(
                a,
                sets=np.concatenate([a.sets, b.sets]),
                set_of=np.concatenate([a.set_of, b.set_of + len(a.sets)], axis=unit),
                windows=tuple(w.stack(v) for w, v in zip(a.windows, b.windows, strict=True)),
                window_of=np.concatenate([a.window_of, b.window_of + shift], axis=unit),
                gated=a.gated or b.gated,
            )
        for d in range(len(a.axes)):
            a, b = a.as_units(d), b.as_units(d)
        return a.concatenate(b, dim)

    def with_gate(self) -> Self:
        """The same reach, flagged: a gate brought global context in."""
        return replace(self, gated=True)

    def whole(self, shape: Sequence[int]) -> Self:
        """A global mixer's honest answer: every element of a tensor of `shape` sees all that any element here sees."""
        here = self.reshape((prod(self.shape),)).as_units(0).select(0, Taps.everything(prod(self.shape)))
        return here._relabel(
            lambda labels: np.broadcast_to(labels.reshape((1,) * len(shape)), tuple(shape))
        )._all_units(shape)

    def _all_units(self, shape: Sequence[int]) -> Self:
        return replace(self, axes=(None,) * len(shape))

    def at(self, index: Sequence[int]) -> tuple[Bools, tuple[tuple[int, int], ...]]:
        """One element's source channels and, per axis, the first and last position it sees.

        What sees nothing (it lies in padding) has no channels, and first > last along every axis.
        """
        unit = tuple(i for i, axis in zip(index, self.axes, strict=True) if axis is None)
        position = {axis: i for i, axis in zip(index, self.axes, strict=True) if axis is not None}
        row = self.window_of[unit]
        spans = tuple(w.span(row, position.get(a, 0)) for a, w in enumerate(self.windows))
        if any(low > high for low, high in spans):  # off the map along one axis is off the map
            return np.zeros(self.sets.shape[1], np.bool_), ((NOTHING, -NOTHING),) * len(spans)
        return self.sets[self.set_of[unit]], spans

    def extent(self) -> Extent:
        """The tensor's own window, hull over its channels and largest over positions, and its mean channel count."""
        rows = np.unique(self.window_of)
        return Extent(
            window=tuple(w.hull(rows) for w in self.windows),
            window_free=tuple(w.hull_free(rows) for w in self.windows),
            channels=float(self.sets.sum(1)[self.set_of].mean()),
            gated=self.gated,
        )

    def _relabel(self, change: Any) -> Self:
        return replace(self, set_of=change(self.set_of), window_of=change(self.window_of))


def _tapped(labels: Ints, unit: int, taps: Taps, none: int) -> Ints:
    """Labels by output element and tap (taps last); a tap outside the tensor gets the label `none`."""
    taken = np.take(labels, taps.index, axis=unit)
    outside = taps.index < 0
    if outside.any():
        shape = [1] * unit + list(outside.shape) + [1] * (labels.ndim - unit - 1)
        taken = np.where(outside.reshape(shape), none, taken)
    return np.moveaxis(taken, unit + 1, -1)


def _combinations(labels: Ints) -> tuple[Ints, Ints]:
    """Distinct label tuples (rows, taps) and, per element, the row it is."""
    flat = labels.reshape(-1, labels.shape[-1])
    if flat.shape[1] > 1 and (flat == flat[:, :1]).all():
        flat = flat[:, :1]  # one label throughout, the common case: nothing to sort by
    rows, inverse = np.unique(flat, axis=0, return_inverse=True)
    return rows, inverse.reshape(labels.shape[:-1])


def _unite(sets: Bools, labels: Ints) -> tuple[Bools, Ints]:
    rows, set_of = _combinations(labels)
    padded = np.concatenate([sets, np.zeros((1, sets.shape[1]), np.bool_)])
    united = np.stack([padded[np.unique(row)].any(0) for row in rows])
    packed, inverse = np.unique(np.packbits(united, axis=1), axis=0, return_inverse=True)
    return np.unpackbits(packed, axis=1, count=sets.shape[1]).astype(np.bool_), inverse.reshape(-1)[set_of]


def _side_by_side(a: Bools, b: Bools, a_of: Ints, b_of: Ints) -> tuple[Bools, Ints]:
    return np.concatenate([a, b]), np.stack([a_of, b_of + len(a)], axis=-1)


def _matching_groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Runs of old and new dimensions with equal products, in order, each as short as it can be."""
    groups, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        left, right = [i] if i < len(old) else [], [j] if j < len(new) else []
        while prod(old[d] for d in left) != prod(new[d] for d in right):
            if prod(old[d] for d in left) < prod(new[d] for d in right):
                left.append(i + len(left))
            else:
                right.append(j + len(right))
        groups.append((left, right))
        i, j = i + len(left), j + len(right)
    return groups
