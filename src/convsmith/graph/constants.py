"""The tables of a net's own that calls read, as they were before any call wrote into them what depends on the input."""

from collections.abc import Mapping

import torch
from torch import Tensor


class Constants(dict[str, Tensor]):
    """Tensors by name. Those of one memory share one here too: a call that writes into one changes the others.

    >>> import torch
    >>> table = torch.zeros(4)
    >>> constants = Constants()
    >>> constants.read("half", table[:2])
    >>> constants.mix(table); _ = table.fill_(1)
    >>> constants["half"].tolist()
    [0.0, 0.0]
    """

    def __init__(self) -> None:
        super().__init__()
        self._memories: dict[int, tuple[Tensor, Tensor]] = {}

    def read(self, name: str, tensor: Tensor) -> None:
        """Enter a tensor under its name."""
        self[name] = self._as_it_was(tensor)

    def mix(self, tensor: Tensor) -> None:
        """A call is about to write into its memory what depends on the input: from now on it is kept as it is."""
        if _storage(tensor) not in self._memories:
            whole = _whole(tensor)
            self._memories[_storage(tensor)] = whole.clone(), whole
        for name, known in self.items():
            self[name] = self._as_it_was(known)

    def mixed(self, tensor: Tensor) -> bool:
        """Whether a call has written into its memory what depends on the input."""
        return _storage(tensor) in self._memories

    def _as_it_was(self, tensor: Tensor) -> Tensor:
        kept, _ = self._memories.get(_storage(tensor), (None, None))
        if kept is None or kept.dtype != tensor.dtype:
            return tensor
        return kept.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that share memory as the tensors do.

    >>> x = torch.zeros(4)
    >>> copies = copied({"whole": x, "half": x[:2]})
    >>> _ = copies["half"].fill_(1)
    >>> copies["whole"].tolist(), x.tolist()
    ([1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0])
    """
    memories: dict[tuple[int, torch.dtype], Tensor] = {}
    for tensor in tensors.values():
        memories.setdefault((_storage(tensor), tensor.dtype), _whole(tensor).clone())
    return {
        name: memories[_storage(x), x.dtype].as_strided(x.size(), x.stride(), x.storage_offset())
        for name, x in tensors.items()
    }


def same_memory(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors lie in one memory."""
    return _storage(one) == _storage(other)


def _whole(tensor: Tensor) -> Tensor:
    """All elements in a tensor's memory."""
    storage = tensor.untyped_storage()
    empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return empty.set_(storage, 0, (storage.nbytes() // tensor.element_size(),), (1,))


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
