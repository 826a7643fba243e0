"""Receptive-field arithmetic: which source channels, and which source window, every element of a tensor depends on.

A dimension of a tensor walks along an axis of the source (0, 1, ...), or tells elements apart. These are places on the
map (PLACES, an axis that was cut or merged) or anything else (None: batch, channels, groups, heads). What elements see
is kept in two tables, of distinct channel sets and of distinct windows, and each element points into both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, reduce
from math import prod
from operator import mul, or_
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from convsmith.reach import labels as lb
from convsmith.reach.axes import factored
from convsmith.reach.extent import Extent
from convsmith.reach.windows import NOTHING, Taps, Windows

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
PLACES = -1


@dataclass(frozen=True, eq=False)
class Reach:
    """The reach of one tensor of `shape`, batch included.

    `axes[d]` says what dimension d is: a source axis, PLACES or None. `set_of` and `window_of` have a dimension for
    each of the tensor's (size 1 along source axes, and where all agree). They point into `sets` (bits: source channels)
    and `windows` (one table per source axis). `gated` and `bound` are told by Extent.

    >>> x = Reach.source((3, 8, 8))
    >>> y = x.select(2, Taps.slide(8, kernel=3, stride=1, padding=1)).select(3, Taps.slide(8, 3, 2, 1))
    >>> y.shape, y.extent().window
    ((1, 3, 8, 4), (3, 3))
    """

    shape: tuple[int, ...]
    axes: tuple[int | None, ...]
    channels: int
    sets: tuple[int, ...]
    set_of: Ints
    windows: tuple[Windows, ...]
    window_of: Ints
    gated: bool = False
    bound: bool = False

    @classmethod
    def source(cls, shape: Sequence[int]) -> Self:
        """The source itself, (channels, *map) in a batch of one: every element sees itself."""
        channels, *sizes = shape
        windows = tuple(Windows.identity(size) for size in sizes)
        line = np.arange(channels).reshape(1, channels, *(1 for _ in sizes))
        none = np.zeros((1,) * (2 + len(sizes)), np.int64)
        bits = tuple(1 << c for c in range(channels))
        return cls((1, *shape), (None, None, *range(len(sizes))), channels, bits, line, windows, none)

    def nothing(self, shape: Sequence[int]) -> Self:
        """Elements of a tensor of `shape` that see nothing of this source: padding, constants."""
        none = np.zeros((1,) * len(shape), np.int64)
        alike = self.axes if self.shape == tuple(shape) else (None,) * len(shape)
        windows = tuple(w.empty(w.positions if axis in alike else 1) for axis, w in enumerate(self.windows))
        return self._with(shape=tuple(shape), axes=alike, sets=(0,), set_of=none, windows=windows, window_of=none,
                       gated=False, bound=False)  # fmt: skip

    @property
    def map(self) -> tuple[int, ...]:
        """The size of the map that this tensor is laid out on; empty where none is to be seen."""
        places = [s for s, axis in zip(self.shape, self.axes, strict=True) if axis is not None]
        return tuple(places) if len(places) == len(self.windows) else ()

    def walks(self, dim: int) -> bool:
        """Whether dimension `dim` walks along an axis of the source."""
        axis = self.axes[dim]
        return axis is not None and axis >= 0

    def select(self, dim: int, taps: Taps) -> Self:
        """Index j of `dim` becomes the union over the elements that `taps` lists for j."""
        dim %= len(self.shape)
        shape = _changed(self.shape, dim, len(taps.index))
        if not len(taps.index):
            return self.nothing(shape)
        if self.walks(dim):
            windows = tuple(w.select(taps) if a == self.axes[dim] else w for a, w in enumerate(self.windows))
            return self._with(shape=shape, windows=windows)
        if taps.identity and shape == self.shape:
            return self
        if self.set_of.shape[dim] == 1 == self.window_of.shape[dim] and not taps.gaps:
            return self._with(shape=shape)  # all indices agree: there is nothing to unite
        here = self.without_holes() if self.rows > 1 else self  # one row: what is united has the same holes
        return here.united(shape, here.axes, lb.tapped(here.set_of, dim, taps), lb.tapped(here.window_of, dim, taps))

    def united(self, shape: tuple[int, ...], axes: tuple[int | None, ...], sets: Ints, windows: Ints) -> Self:
        """Elements that each see the union of what the labels along the last dimension see; -1 sees nothing."""
        rows, set_of = lb.combinations(sets)
        table = (*self.sets, 0)
        unions = [reduce(or_, [table[i] for i in row]) for row in rows.tolist()]
        place = {bits: i for i, bits in enumerate(dict.fromkeys(unions))}
        set_of = np.array([place[bits] for bits in unions])[set_of]
        rows, window_of = lb.combinations(windows)
        tables = tuple(w.unite(rows) for w in self.windows)
        here = self._with(shape=shape, axes=axes, sets=tuple(place), set_of=lb.compact(set_of), windows=tables,
                       window_of=window_of)  # fmt: skip
        return here._distinct()._on_axes()

    def _on_axes(self) -> Self:
        """Places as axes again, where each axis tells its own windows: borders that told them apart wear off."""
        dims = [d for d, axis in enumerate(self.axes) if axis == PLACES]
        apart = any(self.set_of.shape[d] > 1 for d in dims)
        if apart or len(dims) != len(self.windows) or any(map(self.walks, range(len(self.axes)))):
            return self
        found = factored(self.windows, self.window_of, dims, [self.shape[d] for d in dims])
        if found is None:
            return self
        axes = tuple(dims.index(d) if d in dims else axis for d, axis in enumerate(self.axes))
        return self._with(axes=axes, windows=found[0], window_of=found[1])._distinct()

    def _distinct(self) -> Self:
        """Equal windows only once."""
        if self.rows == 1:
            return self._with(window_of=lb.compact(self.window_of))
        first, inverse = lb.distinct(np.concatenate([w.keys() for w in self.windows], axis=1))
        windows = self.windows if len(first) == self.rows else tuple(w.take(first) for w in self.windows)
        return self._with(windows=windows, window_of=lb.compact(inverse[self.window_of]))

    def reduce(self, *dims: int) -> Self:
        """Each of these dimensions becomes one index that sees all."""
        here = self
        for dim in dims:
            here = here.select(dim, Taps.everything(here.shape[dim]))
        return here

    def mix(self, *dims: int) -> Self:
        """Every index of these dimensions sees what any of them sees."""
        return self.reduce(*dims).expand(self.shape)

    def repeat(self, dim: int, times: int) -> Self:
        """Every index of dimension `dim`, `times` times in a row."""
        if times == 1:
            return self
        here, shape = self.as_units(dim), _changed(self.shape, dim, self.shape[dim] * times)
        if here.set_of.shape[dim] == 1 == here.window_of.shape[dim]:
            return here._with(shape=shape)
        relabeled = here._relabel(lambda labels: labels.repeat(times, axis=dim) if labels.shape[dim] > 1 else labels)
        return relabeled._with(shape=shape)

    def tile(self, dim: int, times: int) -> Self:
        """Dimension `dim`, `times` times one behind the other."""
        size = self.shape[dim]
        return self.select(dim, Taps.pick((np.arange(size * times) % size)[:, None]))

    def permute(self, order: Sequence[int]) -> Self:
        """Dimensions in a new order."""
        axes, shape = tuple(self.axes[d] for d in order), tuple(self.shape[d] for d in order)
        return self._with(shape=shape, axes=axes, set_of=self.set_of.transpose(order),
                       window_of=self.window_of.transpose(order))  # fmt: skip

    def reshape(self, shape: Sequence[int]) -> Self:
        """The same elements in row-major order; map dimensions that are cut or merged become places."""
        new, here = tuple(shape), self
        if new == self.shape:
            return self
        groups = lb.matching_groups(self.shape, new)
        axes: list[int | None] = [None] * len(new)
        for old_dims, new_dims in groups:
            if len(old_dims) == len(new_dims) == 1:
                axes[new_dims[0]] = here.axes[old_dims[0]]
                continue
            for dim in old_dims:
                here = here.as_units(dim)
            for dim in new_dims:
                axes[dim] = PLACES if any(here.axes[d] == PLACES for d in old_dims) else None
        kept = {axis for axis in axes if axis is not None}
        for dim, size in enumerate(self.shape):  # axes of size 1 stay where they can, or are no longer walked
            if size == 1 and here.axes[dim] is not None and dim < len(new) and new[dim] == 1 and axes[dim] is None:
                axes[dim] = here.axes[dim] if here.axes[dim] not in kept else None
        set_of, window_of = (lb.reshape(x, self.shape, groups, new) for x in (here.set_of, here.window_of))
        return here._with(shape=new, axes=tuple(axes), set_of=set_of, window_of=window_of)

    def as_units(self, dim: int) -> Self:
        """The map dimension `dim` as places: each position with a window of its own."""
        axis, size = self.axes[dim], self.shape[dim]
        if axis is None or axis < 0:
            return self
        axes = _changed(self.axes, dim, PLACES)
        windows = tuple(w.flatten() if a == axis else w.repeat(size) for a, w in enumerate(self.windows))
        line = np.arange(size).reshape([-1 if d == dim else 1 for d in range(len(axes))])
        return self._with(axes=axes, windows=windows, window_of=self.window_of * size + line)._distinct()

    def as_channels(self, dim: int) -> Self:
        """Dimension `dim` no longer tells places apart."""
        here = self.as_units(dim)
        return here if here.axes[dim] is None else here._with(axes=_changed(here.axes, dim, None))

    def drop(self, dim: int) -> Self:
        """Leave out dimension `dim`, of size 1."""
        without = [d for d in range(len(self.shape)) if d != dim]
        here = self._relabel(lambda labels: labels.squeeze(dim))
        return here._with(shape=tuple(self.shape[d] for d in without), axes=tuple(self.axes[d] for d in without))

    def insert(self, dim: int) -> Self:
        """A new dimension of size 1 at `dim`."""
        here = self._relabel(lambda labels: np.expand_dims(labels, dim))
        return here._with(
            shape=(*self.shape[:dim], 1, *self.shape[dim:]), axes=(*self.axes[:dim], None, *self.axes[dim:])
        )

    def expand(self, shape: Sequence[int], axes: Sequence[int | None] | None = None) -> Self:
        """Broadcast to `shape`, from the right; `axes` says what its dimensions are to be (default: what they are)."""
        here = self
        for _ in range(len(shape) - len(here.shape)):
            here = here.insert(0)
        wanted = here.axes if axes is None else tuple(axes)
        for dim, axis in enumerate(wanted):
            here = here if axis == here.axes[dim] else here.as_units(dim)
        sizes = {axis: size for axis, size in zip(wanted, shape, strict=True) if axis is not None and axis >= 0}
        windows = tuple(w.broadcast(sizes.get(a, 1)) for a, w in enumerate(here.windows))
        return here._with(shape=tuple(shape), axes=wanted, windows=windows)

    @property
    def rows(self) -> int:
        """How many distinct windows there are."""
        return self.windows[0].rows if self.windows else 1

    @cached_property
    def uniform(self) -> bool:
        """Whether all elements see the same channels and windows of one row, none of them nothing."""
        return len(self.sets) == 1 and self.rows == 1 and all(w.full for w in self.windows)

    def with_gate(self) -> Self:
        """The same reach, flagged: a gate brought global context in."""
        return self._with(gated=True)

    def as_bound(self) -> Self:
        """The same reach, flagged: the true one may be smaller."""
        return self._with(bound=True)

    def whole(self, shape: Sequence[int]) -> Self:
        """A global mixer's honest answer: every element of a tensor of `shape` sees all that any element here sees."""
        here = self.reduce(*range(len(self.shape)))
        for dim in range(len(self.shape)):
            here = here.as_units(dim)
        here = here._with(shape=(), axes=(), set_of=here.set_of.reshape(()), window_of=here.window_of.reshape(()))
        return here.expand(shape)

    def without_holes(self) -> Self:
        """Axes with positions that see nothing as places, each for itself."""
        here = self
        for dim in range(len(self.axes)):
            here = here.as_units(dim) if here._holes(dim) else here
        return here._emptied()

    def _holes(self, dim: int) -> bool:
        axis = self.axes[dim]
        return axis is not None and axis >= 0 and self.windows[axis].holes

    def _emptied(self) -> Self:
        """What is off the map along one axis is off the map, and sees no channel."""
        blanks = [w.blank for w in self.windows]
        if not any(blank.any() for blank in blanks):
            return self
        empty = np.any(blanks, axis=0)
        rows = np.where(empty, -1, np.arange(self.rows))[:, None]
        set_of = np.where(empty[self.window_of], len(self.sets), self.set_of)
        return self._with(windows=tuple(w.unite(rows) for w in self.windows), sets=(*self.sets, 0), set_of=set_of)

    def at(self, index: Sequence[int]) -> tuple[Bools, tuple[tuple[int, int], ...]]:
        """One element's source channels and, per axis, the first and last position it sees.

        What sees nothing (it lies in padding) has no channels, and first > last along every axis.
        """
        row, bits = (
            int(x[tuple(min(i, size - 1) for i, size in zip(index, x.shape, strict=True))])
            for x in (self.window_of, self.set_of)
        )
        position = {axis: i for i, axis in zip(index, self.axes, strict=True) if axis is not None and axis >= 0}
        spans = tuple(w.span(row, position.get(a, 0)) for a, w in enumerate(self.windows))
        if any(low > high for low, high in spans):  # off the map along one axis is off the map
            return np.zeros(self.channels, np.bool_), ((NOTHING, -NOTHING),) * len(spans)
        return np.array([self.sets[bits] >> c & 1 for c in range(self.channels)], np.bool_), spans

    def extent(self) -> Extent:
        """The tensor's own window, hull over its channels and largest over places; channels on average, padding 0."""
        return self._extent

    @cached_property
    def _extent(self) -> Extent:
        hulls = self._hulls()
        return Extent(
            window=tuple(w.widest() for w in hulls),
            window_free=tuple(w.widest_free() for w in hulls),
            channels=self._channels(),
            gated=self.gated,
            bound=self.bound,
        )

    def _hulls(self) -> tuple[Windows, ...]:
        """The windows of whole places, all that stands at one of them united."""
        if self.rows == 1:
            return self.windows
        units, places = ([d for d, axis in enumerate(self.axes) if (axis is None) == unit] for unit in (True, False))
        table = self.window_of.transpose(places + units)
        rows, _ = lb.combinations(table.reshape(prod(table.shape[: len(places)]), -1))
        return tuple(w.unite(rows) for w in self.windows)

    def _channels(self) -> float:
        """How many channels an element sees on average, those in padding none."""
        if self.uniform:
            return float(self.sets[0].bit_count())
        counts = np.array([bits.bit_count() for bits in self.sets])
        seeing = reduce(mul, (w.filled for w in self.windows), np.ones(self.rows))
        return float((counts[self.set_of] * seeing[self.window_of]).mean())

    def _with(self, **changes: Any) -> Self:
        """The same with some attributes changed, in a tenth of the time of `replace`, which calls for thousands."""
        here = vars(self)
        made = object.__new__(type(self))
        vars(made).update({name: here[name] for name in _ATTRIBUTES})
        vars(made).update(changes)
        return made

    def _relabel(self, change: Callable[[Ints], Ints]) -> Self:
        return self._with(set_of=change(self.set_of), window_of=change(self.window_of))


_ATTRIBUTES = tuple(field.name for field in fields(Reach))
T = TypeVar("T")


def _changed(values: tuple[T, ...], place: int, value: T) -> tuple[T, ...]:
    return (*values[:place], value, *values[place + 1 :])
