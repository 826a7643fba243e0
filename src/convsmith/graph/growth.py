"""How much a net makes that has values while it is captured: told on shapes first, and refused without a bound."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from convsmith.errors import ConvsmithError
from convsmith.graph.arguments import changed, schema_of, tensors

META = torch.device("meta")
# What torch raises where an op's sizes depend on values, or are not told without them.
UNTOLD = (RuntimeError, TypeError, ValueError, AssertionError, IndexError)
# Ops that make as much as their values say.
BY_VALUES: Mapping[str, Callable[..., int]] = {
    "aten.bincount.default": lambda x, *rest: int(x.max()) + 1 if x.numel() else 0,
    "aten.repeat_interleave.Tensor": lambda repeats, **rest: int(repeats.sum()),
}


class Growth:
    """What is left of a number of numbers that a run may make beyond those that its calls read."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    def enter(self, func: Any, args: Any, kwargs: Any, name: str) -> None:
        """Raise ConvsmithError, by the net's name, where a call would make more than is left."""
        if schema_of(func).view:
            return
        self._left -= max(0, _made(func, args, kwargs) - sum(map(_held, tensors((args, kwargs)))))
        if self._left < 0:
            raise ConvsmithError(
                f"{name}: its forward would make more than {self._most:,} numbers with values, by {func}; "
                "give a smaller --input."
            )


def _held(tensor: Tensor) -> int:
    """Numbers that a tensor has in memory: of an expanded one few."""
    if tensor.is_meta or tensor.layout is not torch.strided:
        return tensor.numel()
    return min(tensor.numel(), tensor.untyped_storage().nbytes() // max(tensor.element_size(), 1))


def _made(func: Any, args: Any, kwargs: Any) -> int:
    """Numbers that a call would make; 0 where it makes no more than it reads."""
    if schema_of(func).name in BY_VALUES:
        return BY_VALUES[schema_of(func).name](*args, **kwargs)
    placed = changed(kwargs, _on_meta)
    if "device" in schema_of(func).arguments:
        placed["device"] = META
    try:
        return sum(tensor.numel() for tensor in tensors(func(*changed(args, _on_meta), **placed)))
    except UNTOLD:
        return 0


def _on_meta(value: Any) -> Any:
    return value.to(META) if isinstance(value, Tensor) else META if isinstance(value, torch.device) else value
