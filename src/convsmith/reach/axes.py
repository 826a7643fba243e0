"""From places back to axes: windows told apart place by place that each axis alone would tell just as well."""

from collections.abc import Sequence

import numpy as np

from convsmith.reach.labels import Ints
from convsmith.reach.windows import Windows


def factored(
    tables: Sequence[Windows], labels: Ints, dims: Sequence[int], sizes: Sequence[int]
) -> tuple[tuple[Windows, ...], Ints] | None:
    """Tables that walk along `dims` (one per axis, of these sizes), and labels into them; None where axes mix.

    An axis alone tells its windows when they are the same wherever an element stands along the other axes.
    """
    walked = []
    for table, dim, size in zip(tables, dims, sizes, strict=True):
        line = _first(labels, [d for d in dims if d != dim])
        if not _agree(table, labels, line):
            return None
        walked.append(_along(table, np.moveaxis(line, dim, -1), size))
    classes = _first(labels, dims)
    return tuple(walked), np.arange(classes.size).reshape(classes.shape)


def _first(labels: Ints, dims: Sequence[int]) -> Ints:
    return labels[tuple(slice(0, 1) if d in dims else slice(None) for d in range(labels.ndim))]


def _agree(table: Windows, labels: Ints, line: Ints) -> bool:
    return all(bool((ends[labels, 0] == ends[line, 0]).all()) for ends in (table.low, table.high))


def _along(table: Windows, line: Ints, size: int) -> Windows:
    """One row per class: the windows at each place in a line; they move on as far as from the first to the last."""
    line = line.reshape(-1, line.shape[-1])
    start, end = line[:, 0], line[:, -1]
    seen = np.isfinite(table.free_low[start]) & np.isfinite(table.free_low[end])
    steps = np.subtract(table.free_low[end], table.free_low[start], where=seen, out=np.zeros(len(line)))
    low, high = (np.broadcast_to(ends[line, 0], (len(line), size)) for ends in (table.low, table.high))
    return Windows(low, high, table.free_low[start], table.free_high[start], steps / max(size - 1, 1))
