"""Work that the processes of a torch.distributed group share: each does a part, and all know the whole."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import distributed, nn

V = TypeVar("V")


def share() -> tuple[int, int]:
    """Which part is this process's: (its number from 0, how many there are); (0, 1) without a group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def gathered(own: V) -> list[V]:
    """What each process has, in the order of their numbers; data that pickle knows.

    >>> gathered(3)
    [3]
    """
    if share()[1] == 1:
        return [own]
    everyones: list[Any] = [None] * share()[1]
    distributed.all_gather_object(everyones, own)
    return everyones


def of_first(make: Callable[[], V]) -> V:
    """What the first process makes, for all.

    >>> of_first(lambda: 3)
    3
    """
    rank, count = share()
    return make() if count == 1 else gathered(make() if rank == 0 else None)[0]  # type: ignore[return-value]


def agree(module: nn.Module) -> None:
    """Give all processes the first one's weights, which rounding may have told apart."""
    if share()[1] > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            distributed.broadcast(tensor.data, src=0)
