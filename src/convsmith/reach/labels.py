"""Label arrays: which row of a table each element of a tensor uses, kept small where elements agree.

A label array has one dimension for each of the tensor's, of the tensor's size or of size 1 where all indices agree.
"""

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from convsmith.reach.windows import Taps

Ints = NDArray[np.int64]


def compact(labels: Ints) -> Ints:
    """Size 1 along every dimension whose indices all agree.

    >>> compact(np.array([[3, 3], [4, 4]])).shape
    (2, 1)
    """
    for dim, size in enumerate(labels.shape):
        if size > 1:
            first = labels.take([0], axis=dim)
            labels = first if (labels == first).all() else labels
    return labels


def tapped(labels: Ints, dim: int, taps: Taps) -> Ints:
    """Labels by output element and tap (taps last); a tap outside the tensor gets the label -1."""
    if labels.shape[dim] == 1:  # all inputs agree: an output differs only where it reads nothing at all
        blank = taps.blank.reshape([-1 if d == dim else 1 for d in range(labels.ndim)])
        return np.where(blank, -1, labels)[..., None] if blank.any() else labels[..., None]
    taken = np.take(labels, taps.index, axis=dim)
    if taps.outside:
        shape = [1] * dim + list(taps.index.shape) + [1] * (labels.ndim - dim - 1)
        taken = np.where((taps.index < 0).reshape(shape), -1, taken)
    return np.moveaxis(taken, dim + 1, -1)


def combinations(labels: Ints) -> tuple[Ints, Ints]:
    """Distinct combinations of labels along the last dimension, and per element the one it is."""
    flat = labels.reshape(-1, labels.shape[-1])
    if len(flat) == 1:
        return np.unique(flat)[None], np.zeros(labels.shape[:-1], np.int64)
    if flat.shape[1] > 1 and (flat == flat[:, :1]).all():
        flat = flat[:, :1]  # one label throughout, the common case: nothing to sort by
    _, first, inverse = np.unique(_codes(flat), return_index=True, return_inverse=True)
    rows = flat[first]
    if flat.shape[1] > 2 and not (rows[inverse] == flat).all():  # two kinds with one code
        rows, inverse = np.unique(flat, axis=0, return_inverse=True)
    return rows, inverse.reshape(labels.shape[:-1])


def _codes(flat: Ints) -> Ints:
    """A number for each line of labels; sorting numbers is many times faster than sorting lines."""
    if flat.shape[1] <= 2:
        return (flat[:, 0] + 1) * (int(flat.max()) + 2) + flat[:, -1] + 1
    weights = np.random.default_rng(0).integers(1, 1 << 62, flat.shape[1])
    codes: Ints = (flat + 1) @ weights  # modulo 2^64
    return codes


def distinct(keys: Ints) -> tuple[Ints, Ints]:
    """The first of each kind of row of a table, and per row the kind it is."""
    data, step = np.ascontiguousarray(keys).tobytes(), keys.shape[1] * keys.itemsize
    kinds: dict[bytes, int] = {}
    inverse = np.array([kinds.setdefault(data[i : i + step], len(kinds)) for i in range(0, len(data), step)])
    return np.unique(inverse, return_index=True)[1], inverse


def stacked(arrays: Sequence[Ints], rows: Sequence[int]) -> list[Ints]:
    """Labels into several tables, as labels into the tables one below the other."""
    return [labels + start for labels, start in zip(arrays, np.cumsum([0, *rows]), strict=False)]


def in_line(arrays: Sequence[Ints], sizes: Sequence[int], dim: int) -> Ints:
    """Labels of tensors one behind the other along `dim`, where they have these sizes."""
    shape = list(np.broadcast_shapes(*((*x.shape[:dim], *x.shape[dim + 1 :]) for x in arrays)))
    full = [np.broadcast_to(x, (*shape[:dim], size, *shape[dim:])) for x, size in zip(arrays, sizes, strict=True)]
    return np.concatenate(full, axis=dim)


def reshape(
    labels: Ints, old: Sequence[int], groups: Sequence[tuple[list[int], list[int]]], new: Sequence[int]
) -> Ints:
    """Labels of a tensor of shape `old` under the shape `new`; `groups` says which dimensions became which."""
    full, shape = list(labels.shape), [1] * len(new)
    for before, after in groups:
        if any(labels.shape[d] > 1 for d in before):
            for d in before:
                full[d] = old[d]
            for d in after:
                shape[d] = new[d]
    spread = np.broadcast_to(labels, full).reshape(shape)
    return compact(spread) if prod(full) > 1 else spread


def matching_groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Runs of old and new dimensions with equal products, in order, each as short as it can be; sizes 1 apart.

    >>> matching_groups((1, 4, 7, 6), (2, 2, 1, 42))
    [([1], [0, 1]), ([2, 3], [3])]
    """
    olds, news = ([d for d, size in enumerate(shape) if size != 1] for shape in (old, new))
    groups, i, j = [], 0, 0
    while i < len(olds) or j < len(news):
        left, right = olds[i : i + 1], news[j : j + 1]
        while prod(old[d] for d in left) != prod(new[d] for d in right):
            if prod(old[d] for d in left) < prod(new[d] for d in right):
                left.append(olds[i + len(left)])
            else:
                right.append(news[j + len(right)])
        groups.append((left, right))
        i, j = i + len(left), j + len(right)
    return groups
