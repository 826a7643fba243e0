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
    """One row per class: the windows at each place in a line.

    The free window is that of the widest places, since others lost what lies beyond a border. It moves on as far as
    from the first of them to the last.
    """
    line = np.broadcast_to(line.reshape(-1, line.shape[-1]), (line.size // line.shape[-1], size))
    classes, free_low, free_high = np.arange(len(line)), table.free_low[line], table.free_high[line]
    widest = free_high - free_low
    widest = widest >= widest.max(1, keepdims=True)
    first, last = widest.argmax(1), size - 1 - widest[:, ::-1].argmax(1)
    alone = first == last
    begin, end = np.where(alone, 0, first), np.where(alone, size - 1, last)
    seen, moved = np.isfinite(free_low), np.where(np.isfinite(free_low), free_low, 0)
    steps = (moved[classes, end] - moved[classes, begin]) / np.maximum(end - begin, 1)
    steps = np.where(seen[classes, begin] & seen[classes, end], steps, 0)
    low, high = (np.broadcast_to(ends[line, 0], (len(line), size)) for ends in (table.low, table.high))
    start, stop = (ends[classes, first] - steps * first for ends in (free_low, free_high))
    return Windows(low, high, start, stop, steps)
