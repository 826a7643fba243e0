"""How views of one memory lie on each other: as boxes of steps along the dimensions of the tensor that owns it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """Where a tensor lies in its memory: sizes, strides and first place, in elements."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """A tensor's own."""
        return cls(tuple(tensor.size()), tuple(tensor.stride()), int(tensor.storage_offset()))


@dataclass(frozen=True)
class Box:
    """A view of `shape` as a box in its owner: per dimension of the owner the first index, the step and the count.

    The view, reshaped to the counts of the dimensions in `order`, is the box with its dimensions in that order.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    start: tuple[int, ...]
    step: tuple[int, ...]
    count: tuple[int, ...]

    @property
    def pieces(self) -> tuple[int, ...]:
        """The counts of the dimensions in `order`."""
        return tuple(self.count[dim] for dim in self.order)

    def places(self, other: "Box", dim: int) -> Ints:
        """Per index of this box along an owner's dimension, the index of the other there, -1 where it is outside."""
        places = self.start[dim] + np.arange(self.count[dim]) * self.step[dim] - other.start[dim]
        index = places // other.step[dim]
        inside = (places % other.step[dim] == 0) & (index >= 0) & (index < other.count[dim])
        return np.where(inside, index, -1)

    def ahead(self, other: "Box", dim: int) -> float:
        """How many of the other's indices this box begins behind it."""
        return (self.start[dim] - other.start[dim]) / other.step[dim]

    def pace(self, other: "Box", dim: int) -> float:
        """How many of the other's indices an index here moves on by."""
        return self.step[dim] / other.step[dim]


Piece = tuple[int, int, int]  # owner's dimension, step, count


def box_in(view: Layout, owner: Layout) -> Box | None:
    """A view as a box in the tensor that owns the memory; None where it is none, or the owner's elements overlap.

    >>> whole = Layout((1, 4, 6), (24, 6, 1), 0)
    >>> box_in(Layout((1, 2, 3), (24, 6, 2), 13), whole)
    Box(shape=(1, 2, 3), order=(1, 2), start=(0, 2, 1), step=(1, 1, 2), count=(1, 2, 3))
    """
    dims = sorted((d for d, size in enumerate(owner.size) if size > 1), key=lambda d: -owner.stride[d])
    start = _corner(view.offset - owner.offset, owner, dims)
    if start is None or 0 in view.size:
        return None
    pieces: list[Piece] = []
    for size, stride in zip(view.size, view.stride, strict=True):
        spans = _split(size, stride, owner, dims, start) if size > 1 else []
        if spans is None:
            return None
        pieces += spans
    return _boxed(view.size, _merged(pieces), start)


def _corner(offset: int, owner: Layout, dims: Sequence[int]) -> list[int] | None:
    """The owner's indices of a place, its dimensions from the widest stride on."""
    start = [0] * len(owner.size)
    for dim, inner in zip(dims, [*dims[1:], None], strict=False):
        if inner is not None and owner.stride[dim] < owner.size[inner] * owner.stride[inner]:
            return None
        start[dim], offset = divmod(offset, max(owner.stride[dim], 1))
        if not 0 <= start[dim] < owner.size[dim]:
            return None
    return None if offset else start


def _split(size: int, stride: int, owner: Layout, dims: Sequence[int], start: Sequence[int]) -> list[Piece] | None:
    """A view's dimension as steps along the owner's, outer ones first: several where the view has flattened them."""
    for dim in dims:
        pitch, length = owner.stride[dim], owner.size[dim]
        if pitch and 0 < pitch <= stride < pitch * length and stride % pitch == 0:
            step = stride // pitch
            if start[dim] + step * (size - 1) < length:
                return [(dim, step, size)]
            inner = length // step
            if length % step or start[dim] >= step or inner < 2 or size % inner:
                return None
            outer = _split(size // inner, stride * inner, owner, dims, start)
            return None if outer is None else [*outer, (dim, step, inner)]
    return None


def _merged(pieces: Sequence[Piece]) -> list[Piece]:
    """Neighbours that together walk one dimension of the owner: the view has cut it in two."""
    merged: list[Piece] = []
    for dim, step, count in pieces:
        if merged and merged[-1][0] == dim and merged[-1][1] == step * count:
            merged[-1] = (dim, step, merged[-1][2] * count)
        else:
            merged.append((dim, step, count))
    return merged


def _boxed(shape: tuple[int, ...], pieces: Sequence[Piece], start: Sequence[int]) -> Box | None:
    order = tuple(dim for dim, _, _ in pieces)
    if len(set(order)) < len(order) or prod(count for _, _, count in pieces) != prod(shape):
        return None
    steps, counts = [1] * len(start), [1] * len(start)
    for dim, step, count in pieces:
        steps[dim], counts[dim] = step, count
    return Box(shape, order, tuple(start), tuple(steps), tuple(counts))
