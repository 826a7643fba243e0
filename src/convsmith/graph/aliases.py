"""Which tensors share memory: what a write to one changes in another."""

import weakref
from collections.abc import Callable

import torch
from torch import Tensor

from convsmith.graph.lattice import Box, Layout, box_in

Reference = Callable[[], Tensor | None]


def kept(tensor: Tensor) -> Reference:
    """Refer to a tensor and keep it: neither its memory nor its id is used again."""
    return lambda: tensor


def let_go(tensor: Tensor) -> Reference:
    """Refer to a tensor for as long as someone else keeps it."""
    return weakref.ref(tensor)


class Aliases:
    """Tensors by their storage; the first one entered owns it.

    refer: whether tensors are kept alive.

    >>> x = torch.zeros(4, 4)
    >>> aliases = Aliases()
    >>> for each in (x, x[:2], x[2:]): aliases.add(each)
    >>> [tuple(other.shape) for other in aliases.overlapping(x[:2])]
    [(4, 4), (2, 4)]
    """

    def __init__(self, refer: Callable[[Tensor], Reference] = kept) -> None:
        self._refer = refer
        self._by_storage: dict[int, list[Reference]] = {}
        self._owners: dict[int, tuple[Layout, torch.dtype]] = {}
        self._stands_for: dict[int, int] = {}

    def add(self, tensor: Tensor) -> None:
        """Enter a tensor, once."""
        key = self._key(tensor)
        here = [other() for other in self._by_storage.get(key, ())]
        if not here or all(other is None for other in here):  # new memory, or memory used again
            self._by_storage[key] = [self._refer(tensor)]
            self._owners[key] = Layout.of(tensor), tensor.dtype
        elif all(other is not tensor for other in here):
            self._by_storage[key].append(self._refer(tensor))

    def stand_for(self, shadow: Tensor, tensor: Tensor) -> None:
        """From now on the memory of `shadow`, laid out alike, counts as that of `tensor`."""
        self._stands_for[_storage(shadow)] = self._key(tensor)

    def overlapping(self, tensor: Tensor) -> list[Tensor]:
        """The other tensors entered that hold an element of this one."""
        others = [other() for other in self._by_storage.get(self._key(tensor), ())]
        return [other for other in others if other is not None and other is not tensor and _overlap(tensor, other)]

    def knows(self, tensor: Tensor) -> bool:
        """Whether an element of this tensor is one of a tensor entered."""
        others = [other() for other in self._by_storage.get(self._key(tensor), ())]
        return any(other is tensor or (other is not None and _overlap(tensor, other)) for other in others)

    def box(self, tensor: Tensor) -> Box | None:
        """Where in its owner a tensor lies; None where that cannot be told by steps along dimensions."""
        owner, kind = self._owners.get(self._key(tensor), (None, None))
        return None if owner is None or kind != tensor.dtype else box_in(Layout.of(tensor), owner)

    def _key(self, tensor: Tensor) -> int:
        storage = _storage(tensor)
        return self._stands_for.get(storage, storage)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _overlap(a: Tensor, b: Tensor) -> bool:
    (a_first, a_last), (b_first, b_last) = _span(a), _span(b)
    if a_last < b_first or b_last < a_first:
        return False
    if a.dtype != b.dtype:
        return True  # a view under another type: places differ in size
    if a_first == b_first:
        return True
    for dense, (first, last), ends in ((a, (a_first, a_last), _span(b)), (b, (b_first, b_last), _span(a))):
        if dense.is_contiguous() and any(first <= place <= last for place in ends):
            return True  # without a table of all places, which grows with the image
    taken = torch.zeros(max(a_last, b_last) + 1, dtype=torch.bool)
    taken.as_strided(a.size(), a.stride(), a_first).fill_(True)
    return bool(taken.as_strided(b.size(), b.stride(), b_first).any())


def _span(tensor: Tensor) -> tuple[int, int]:
    """The first and last place in its storage; last < first where it has no elements."""
    first = int(tensor.storage_offset())
    steps = sum(int((size - 1) * stride) for size, stride in zip(tensor.size(), tensor.stride(), strict=True))
    return first, first + steps if tensor.numel() else first - 1
