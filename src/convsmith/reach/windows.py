"""Intervals along one axis of a map: where each position of a tensor looks in the source."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
NOTHING = 1 << 40  # an empty interval is [NOTHING, -NOTHING], neutral under union


@dataclass(frozen=True, eq=False)
class Taps:
    """Which indices of a dimension each output index reads: (outputs, taps), -1 for none (padding).

    `first` and `last` are the ends of output 0's reading and `step` the distance between outputs, as if there were no
    border. The free window is made of these.
    """

    index: Ints
    first: float = 0.0
    last: float = 0.0
    step: float = 1.0

    @cached_property
    def identity(self) -> bool:
        """Whether every output reads its own index and nothing else."""
        return self.index.shape[1] == 1 and bool((self.index[:, 0] == np.arange(len(self.index))).all())

    @cached_property
    def outside(self) -> bool:
        """Whether any output reads padding."""
        return bool((self.index < 0).any())

    @cached_property
    def blank(self) -> Bools:
        """The outputs that read nothing but padding."""
        blank: Bools = np.all(self.index < 0, axis=1)
        return blank

    @cached_property
    def gaps(self) -> bool:
        """Whether any output reads nothing but padding."""
        return self.outside and bool(self.blank.any())

    @classmethod
    @lru_cache(maxsize=512)
    def slide(
        cls, size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1, outputs: int | None = None
    ) -> Self:
        """A kernel sliding over `size` positions; `outputs` is given where rounding up makes one more (ceil_mode).

        >>> Taps.slide(4, kernel=3, stride=2, padding=1).index.tolist()
        [[-1, 0, 1], [1, 2, 3]]
        """
        reach = dilation * (kernel - 1)
        count = (size + 2 * padding - reach - 1) // stride + 1 if outputs is None else outputs
        index = np.arange(count)[:, None] * stride - padding + np.arange(kernel)[None] * dilation
        return cls(_inside(index, size), -padding, reach - padding, stride)

    @classmethod
    @lru_cache(maxsize=512)
    def spread(cls, size: int, kernel: int, stride: int, padding: int, dilation: int, outputs: int) -> Self:
        """A transposed convolution: output o reads input i where i stride + t dilation - padding = o for a tap t.

        The free window is the widest of the phases: a bound once more strides follow.

        >>> Taps.spread(3, kernel=3, stride=2, padding=1, dilation=1, outputs=5).index.tolist()
        [[-1, 0, -1], [1, -1, 0], [-1, 1, -1], [2, -1, 1], [-1, 2, -1]]
        """
        above = np.arange(outputs)[:, None] + padding - np.arange(kernel)[None] * dilation
        index = np.where(above % stride == 0, above // stride, size)
        phases = above[: min(stride, outputs)]
        hit = phases % stride == 0
        lows = np.where(hit, phases // stride, NOTHING).min(1)
        highs = np.where(hit, phases // stride, -NOTHING).max(1)
        widest = int((highs - lows).argmax())
        return cls(_inside(index, size), float(lows[widest]), float(highs[widest]), 1 / stride)

    @classmethod
    @lru_cache(maxsize=512)
    def window(cls, size: int, start: int, outputs: int, step: int = 1) -> Self:
        """Every `step`-th position from `start`: slices and crops, and padding where it leaves the map."""
        index = start + np.arange(outputs)[:, None] * step
        return cls(_inside(index, size), start, start, step)

    def flipped(self, size: int) -> "Taps":
        """For each of `size` indices read, where in this table, read tap by tap, it stands."""
        places = np.arange(self.index.size).reshape(self.index.T.shape)
        found = [places[i == self.index.T] for i in range(size)]
        most = max(len(where) for where in found)
        table = np.full((size, max(most, 1)), -1)
        for row, where in zip(table, found, strict=True):
            row[: len(where)] = where
        return Taps.pick(table)

    @classmethod
    @lru_cache(maxsize=512)
    def everything(cls, size: int, outputs: int = 1) -> Self:
        """Outputs that each read all positions."""
        return cls(np.broadcast_to(np.arange(size), (outputs, size)), 0, size - 1, size)

    @classmethod
    @lru_cache(maxsize=512)
    def groups(cls, size: int, groups: int) -> Self:
        """One output per group of neighbours."""
        return cls(np.arange(size).reshape(groups, -1), 0, size // groups - 1, size // groups)

    @classmethod
    @lru_cache(maxsize=512)
    def bins(cls, size: int, outputs: int) -> Self:
        """Adaptive pooling: output j reads floor(j size / outputs) up to ceil((j + 1) size / outputs)."""
        starts = np.arange(outputs) * size // outputs
        stops = -(-(np.arange(1, outputs + 1) * size) // outputs)
        width = int((stops - starts).max())
        index = starts[:, None] + np.arange(width)[None]
        return cls(np.where(index < stops[:, None], index, -1), 0, width - 1, size / outputs)

    @classmethod
    def pick(cls, index: Ints, step: float = 1.0) -> Self:
        """Any (outputs, taps) table of indices; the free window is bounded by the hull of the first row."""
        first = index[0][index[0] >= 0]
        return cls(index, float(first.min(initial=NOTHING)), float(first.max(initial=-NOTHING)), step)


def _inside(index: Ints, size: int) -> Ints:
    return np.where((index >= 0) & (index < size), index, -1)


@dataclass(frozen=True, eq=False)
class Windows:
    """A table of windows: first and last source position by (row, position), ends inclusive.

    Beside it is the free window, as if maps had no border. It has its ends at position 0 and the distance from one
    position to the next (the jump, in source positions), a number per row.
    """

    low: Ints
    high: Ints
    free_low: Floats
    free_high: Floats
    jump: Floats

    @classmethod
    def identity(cls, size: int) -> Self:
        """One row in which each position sees itself."""
        line, zero = np.arange(size)[None], np.zeros(1)
        return cls(line, line, zero, zero, np.ones(1))

    def empty(self, positions: int) -> Self:
        """One row of positions that see nothing."""
        return type(self)(
            np.full((1, positions), NOTHING), np.full((1, positions), -NOTHING),
            np.full(1, np.inf), np.full(1, -np.inf), np.zeros(1),
        )  # fmt: skip

    @property
    def rows(self) -> int:
        """How many distinct windows the table holds."""
        return len(self.low)

    @property
    def positions(self) -> int:
        """The tensor's size along this axis, 1 where no dimension walks along it."""
        return int(self.low.shape[1])

    @cached_property
    def full(self) -> bool:
        """Whether every position of every row sees something."""
        return bool((self.low <= self.high).all())

    @cached_property
    def holes(self) -> bool:
        """Whether any row has positions that see nothing beside others that see something."""
        empty = self.low > self.high
        return bool((empty.any(1) & ~empty.all(1)).any())

    @cached_property
    def blank(self) -> Bools:
        """The rows that see nothing at any position."""
        blank: Bools = np.all(self.low > self.high, axis=1)
        return blank

    @cached_property
    def filled(self) -> Floats:
        """For each row the share of positions that see something."""
        share: Floats = np.mean(self.low <= self.high, axis=1)
        return share

    def select(self, taps: Taps) -> Self:
        """Each output position sees the union of what its taps see."""
        if taps.identity and len(taps.index) == self.positions:
            return self
        low, high = self.low, self.high
        if taps.outside:  # index -1 then reads a last column that sees nothing
            low = np.concatenate([low, np.full((self.rows, 1), NOTHING)], axis=1)
            high = np.concatenate([high, np.full((self.rows, 1), -NOTHING)], axis=1)
        free_low, free_high = self.free_low + self.jump * taps.first, self.free_high + self.jump * taps.last
        return type(self)(
            low[:, taps.index].min(2), high[:, taps.index].max(2), free_low, free_high, self.jump * taps.step
        )

    def unite(self, rows: Ints) -> Self:
        """A new table whose row r is the union of the rows that `rows[r]` lists; index -1 means none."""
        table = self.stack([self.empty(self.positions)]) if (rows < 0).any() else self
        if rows.shape[1] == 1:
            return table.take(rows[:, 0])
        return type(self)(
            table.low[rows].min(1), table.high[rows].max(1),
            table.free_low[rows].min(1), table.free_high[rows].max(1), table.jump[rows].max(1),
        )  # fmt: skip

    def take(self, rows: Ints) -> Self:
        """These rows only."""
        return type(self)(self.low[rows], self.high[rows], self.free_low[rows], self.free_high[rows], self.jump[rows])

    def stack(self, others: Sequence[Self]) -> Self:
        """The rows of other tables below this table's."""
        tables = [self, *others]
        return type(self)(
            np.concatenate([t.low for t in tables]), np.concatenate([t.high for t in tables]),
            np.concatenate([t.free_low for t in tables]), np.concatenate([t.free_high for t in tables]),
            np.concatenate([t.jump for t in tables]),
        )  # fmt: skip

    def keys(self) -> Ints:
        """The table as one line of numbers per row, to tell rows apart."""
        ends = np.stack([self.free_low, self.free_high, self.jump], axis=1).view(np.int64)
        return np.concatenate([self.low, self.high, ends], axis=1)

    def flatten(self) -> Self:
        """Each (row, position) as a row of its own with one position."""
        places = self.jump[:, None] * np.arange(self.positions)
        return type(self)(
            self.low.reshape(-1, 1), self.high.reshape(-1, 1),
            (self.free_low[:, None] + places).ravel(), (self.free_high[:, None] + places).ravel(),
            self.jump.repeat(self.positions),
        )  # fmt: skip

    def repeat(self, times: int) -> Self:
        """Each row `times` times in a row."""
        return self.take(np.arange(self.rows).repeat(times))

    def broadcast(self, positions: int) -> Self:
        """One position seen from each of `positions`, which then all look to the same place."""
        if positions == self.positions:
            return self
        shape = (self.rows, positions)
        return type(self)(
            np.broadcast_to(self.low, shape), np.broadcast_to(self.high, shape),
            self.free_low, self.free_high, np.zeros(self.rows),
        )  # fmt: skip

    def span(self, row: int, position: int) -> tuple[int, int]:
        """First and last source position that one position of one row sees."""
        return int(self.low[row, position]), int(self.high[row, position])

    def widest(self) -> int:
        """The widest window of any row and position; 0 where nothing is seen."""
        return max(int((self.high - self.low).max()) + 1, 0)

    def widest_free(self) -> int:
        """The same without borders."""
        seen = np.isfinite(self.free_low)
        return max(round(float((self.free_high - self.free_low)[seen].max())) + 1, 0) if seen.any() else 0
