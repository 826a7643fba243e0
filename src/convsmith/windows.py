"""Intervals along one axis of a map: where each position of a tensor looks in the source."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
NOTHING = 1 << 40  # an empty interval is [NOTHING, -NOTHING], neutral under union


@dataclass(frozen=True, eq=False)
class Taps:
    """Which indices of a dimension each output index reads: (outputs, taps), -1 for none (padding).

    `first` and `last` are the ends of output 0's reading and `step` the distance between outputs, as if there were no
    border: what the free window is made of.
    """

    index: Ints
    first: float = 0.0
    last: float = 0.0
    step: float = 1.0

    @classmethod
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
    def window(cls, size: int, start: int, outputs: int, step: int = 1) -> Self:
        """Every `step`-th position from `start`: slices and crops, and padding where it leaves the map."""
        index = start + np.arange(outputs)[:, None] * step
        return cls(_inside(index, size), start, start, step)

    @classmethod
    def everything(cls, size: int) -> Self:
        """One output that reads all positions."""
        return cls(np.arange(size)[None], 0, size - 1, size)

    @classmethod
    def groups(cls, size: int, groups: int) -> Self:
        """One output per group of neighbours."""
        return cls(np.arange(size).reshape(groups, -1), 0, size // groups - 1, size // groups)

    @classmethod
    def bins(cls, size: int, outputs: int) -> Self:
        """Adaptive pooling: output j reads floor(j size / outputs) up to ceil((j + 1) size / outputs)."""
        starts = np.arange(outputs) * size // outputs
        stops = -(-(np.arange(1, outputs + 1) * size) // outputs)
        width = int((stops - starts).max())
        index = starts[:, None] + np.arange(width)[None]
        return cls(np.where(index < stops[:, None], index, -1), 0, width - 1, size / outputs)

    @classmethod
    def pick(cls, index: Ints) -> Self:
        """Any (outputs, taps) table of indices; the free window is bounded by the hull of the first row."""
        return cls(index, float(index[0].min()), float(index[0].max()))


def _inside(index: Ints, size: int) -> Ints:
    return np.where((index >= 0) & (index < size), index, -1)


@dataclass(frozen=True, eq=False)
class Windows:
    """A table of windows: first and last source position by (row, position), ends inclusive.

    Beside it the free window, as if maps had no border: its ends at position 0 and the distance from one position to
    the next (the jump, in source positions), a number per row.
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

    def empty(self) -> Self:
        """One row, as many positions, seeing nothing."""
        return type(self)(
            np.full((1, self.positions), NOTHING), np.full((1, self.positions), -NOTHING),
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

    def select(self, taps: Taps) -> Self:
        """Each output position sees the union of what its taps see."""
        low = np.concatenate([self.low, np.full((self.rows, 1), NOTHING)], axis=1)[:, taps.index].min(2)
        high = np.concatenate([self.high, np.full((self.rows, 1), -NOTHING)], axis=1)[:, taps.index].max(2)
        free_low, free_high = self.free_low + self.jump * taps.first, self.free_high + self.jump * taps.last
        return type(self)(low, high, free_low, free_high, self.jump * taps.step)

    def unite(self, rows: Ints) -> Self:
        """A new table whose row r is the union of the rows that `rows[r]` lists; index `self.rows` means none."""
        table = self.stack(self.empty())
        return type(self)(
            table.low[rows].min(1), table.high[rows].max(1),
            table.free_low[rows].min(1), table.free_high[rows].max(1), table.jump[rows].max(1),
        )  # fmt: skip

    def stack(self, other: Self) -> Self:
        """The rows of `other` below this table's."""
        return type(self)(
            np.concatenate([self.low, other.low]), np.concatenate([self.high, other.high]),
            np.concatenate([self.free_low, other.free_low]), np.concatenate([self.free_high, other.free_high]),
            np.concatenate([self.jump, other.jump]),
        )  # fmt: skip

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
        index = np.arange(self.rows).repeat(times)
        return type(self)(
            self.low[index], self.high[index], self.free_low[index], self.free_high[index], self.jump[index]
        )

    def broadcast(self, positions: int) -> Self:
        """One position seen from each of `positions`."""
        shape = (self.rows, positions)
        return type(self)(
            np.broadcast_to(self.low, shape), np.broadcast_to(self.high, shape),
            self.free_low, self.free_high, self.jump,
        )  # fmt: skip

    def span(self, row: int, position: int) -> tuple[int, int]:
        """First and last source position that one position of one row sees."""
        return int(self.low[row, position]), int(self.high[row, position])

    def hull(self, rows: Ints) -> int:
        """The widest window over positions, of the hull over `rows`."""
        widest = (self.high[rows].max(0) - self.low[rows].min(0)).max()
        return max(int(widest) + 1, 0)

    def hull_free(self, rows: Ints) -> int:
        """The same without borders; 0 where nothing is seen."""
        low, high = self.free_low[rows].min(), self.free_high[rows].max()
        return round(high - low) + 1 if np.isfinite(low) else 0
