"""How a capture runs the calls that depend on the input: on shapes alone, or on numbers where forward reads them."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from convsmith.bounds import RUN
from convsmith.graph.aliases import Aliases, Reference, kept, let_go
from convsmith.graph.arguments import changed, schema_of, tensors
from convsmith.graph.call import RULES
from convsmith.graph.growth import META, Growth

KEPT_ANSWERS = 10_000


@lru_cache(maxsize=1)
def _answers_so_far() -> dict[Any, Any]:
    """The answers of calls by what decides their shapes, for all tapes: nets captured in turn make alike calls."""
    return {}


class Execution(Protocol):
    """What a tape asks of it: how tensors are referred to, and the answer of a call."""

    refer: Callable[[Tensor], Reference]

    def run(self, func: Any, args: Any, kwargs: Any, aliases: Aliases) -> Any:
        """Run a call that depends on the input."""

    def at_home(self, value: Any) -> Any:
        """An argument of a call that does not."""

    def sized_by_values(self, func: Any, args: Any, kwargs: Any) -> bool:
        """Whether how many elements a call makes depends on what its arguments hold."""


class OnNumbers:
    """Every call on the numbers themselves: values may be read; tensors live as long as the model keeps them."""

    def __init__(self, name: str) -> None:
        self.refer: Callable[[Tensor], Reference] = let_go
        self._name, self._growth = name, Growth(RUN)

    def run(self, func: Any, args: Any, kwargs: Any, aliases: Aliases) -> Any:
        """As it is, within a bound."""
        self._growth.enter(func, args, kwargs, self._name)
        return func(*args, **kwargs)

    def at_home(self, value: Any) -> Any:
        """As it is."""
        return value

    def sized_by_values(self, func: Any, args: Any, kwargs: Any) -> bool:
        """Where torch cannot tell the shapes: asked of what it marks so (an index may be a mask) and of ops unknown."""
        if torch.Tag.dynamic_output_shape not in func.tags and schema_of(func).name in RULES:
            return False
        args, kwargs = (changed(each, _on_meta) for each in (args, kwargs))
        try:
            func(*args, **kwargs)
        except (RuntimeError, TypeError, ValueError, AssertionError):
            return True
        return False


class OnShapes:
    """Calls that depend on the input on the meta device: memory and time do not grow with resolution.

    home: where the model's own tables are made.
    """

    def __init__(self, home: torch.device) -> None:
        self.refer: Callable[[Tensor], Reference] = kept
        self._home = home
        self._shadows: dict[int, Tensor] = {}
        self._originals: dict[int, Tensor] = {}
        self._memories: dict[tuple[int, torch.dtype], Tensor] = {}
        self._answers = _answers_so_far()

    def at_home(self, value: Any) -> Any:
        """A table made "where the input is" is made where the model is: forward may ask for its values."""
        return self._home if isinstance(value, torch.device) and value == META else value

    def sized_by_values(self, func: Any, args: Any, kwargs: Any) -> bool:
        """Never: such calls fail without values."""
        return False

    def run(self, func: Any, args: Any, kwargs: Any, aliases: Aliases) -> Any:
        """Shapes are worked out once for calls that are alike: torch needs milliseconds for a normalization's."""
        if torch.Tag.inplace_view in func.tags and args[0].device != META:
            raise RuntimeError(f"{schema_of(func).name} makes another tensor of a table of the model's own")
        args, kwargs = (changed(each, lambda value: self._without_values(value, aliases)) for each in (args, kwargs))
        like = (func, _signature(args), _signature([*kwargs.items()]), torch.get_default_dtype())
        same = schema_of(func).in_place
        if like in self._answers:
            return self._original(args[0]) if same else changed(self._answers[like], _alike)
        out = func(*args, **kwargs)
        if same or not any(aliases.knows(made) for made in tensors(out)):  # a view, and dropout, share their input's
            if len(self._answers) >= KEPT_ANSWERS:
                self._answers.clear()
            self._answers[like] = out
        return changed(out, self._original)

    def _original(self, value: Any) -> Any:
        return self._originals.get(id(value), value)

    def _without_values(self, value: Any, aliases: Aliases) -> Any:
        if isinstance(value, Tensor):
            return value if value.device == META else self._shadow(value, aliases)
        return META if isinstance(value, torch.device) else value

    def _shadow(self, tensor: Tensor, aliases: Aliases) -> Tensor:
        """A tensor without its values, always the same one, in a memory that stands for the tensor's."""
        if id(tensor) not in self._shadows:
            shadow = self._memory(tensor, aliases).as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
            self._shadows[id(tensor)], self._originals[id(shadow)] = shadow, tensor
        return self._shadows[id(tensor)]

    def _memory(self, tensor: Tensor, aliases: Aliases) -> Tensor:
        storage = tensor.untyped_storage()
        key = int(storage._cdata), tensor.dtype
        if key not in self._memories:
            elements = storage.nbytes() // tensor.element_size()
            self._memories[key] = torch.empty(elements, dtype=tensor.dtype, device=META)
            aliases.stand_for(self._memories[key], tensor)
        return self._memories[key]


def _on_meta(value: Any) -> Any:
    return value.to(META) if isinstance(value, Tensor) else META if isinstance(value, torch.device) else value


def _signature(value: Any) -> Any:
    """What decides the shapes of an answer, hashable; numbers with their type, as 1 == 1.0 == True."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    return tuple(map(_signature, value)) if isinstance(value, list | tuple) else (type(value), value)


def _alike(value: Any) -> Any:
    """A new tensor of the same layout: a twentieth of what `empty_like` takes without values."""
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=META)
