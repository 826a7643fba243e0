"""Which tensors share memory: what a write to one changes in another."""

from collections import defaultdict

import torch
from torch import Tensor


class Aliases:
    """Tensors by their storage; kept alive, so that neither storages nor ids are used again.

    >>> x = torch.zeros(4, 4)
    >>> aliases = Aliases()
    >>> for each in (x, x[:2], x[2:]): aliases.add(each)
    >>> [tuple(other.shape) for other in aliases.overlapping(x[:2])]
    [(4, 4), (2, 4)]
    """

    def __init__(self) -> None:
        self._by_storage: dict[int, list[Tensor]] = defaultdict(list)

    def add(self, tensor: Tensor) -> None:
        """Enter a tensor, once."""
        here = self._by_storage[_storage(tensor)]
        if all(other is not tensor for other in here):
            here.append(tensor)

    def overlapping(self, tensor: Tensor) -> list[Tensor]:
        """The other tensors entered that hold an element of this one."""
        others = self._by_storage.get(_storage(tensor), ())
        return [other for other in others if other is not tensor and _overlap(tensor, other)]


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
