"""The tensors in what a model answers: in any container, also of classes of its own."""

from collections.abc import Iterator, Mapping, Sequence, Set
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

# No containers of answers: what they hold belongs to the model or to the program.
CLOSED = (str, bytes, type, nn.Module, ModuleType, FunctionType, BuiltinFunctionType, MethodType)


def answered(value: Any) -> list[Tensor]:
    """Every tensor in an answer, once, in order: of lists, dictionaries, iterators, and the attributes of any object.

    >>> import torch
    >>> from types import SimpleNamespace
    >>> out = SimpleNamespace(logits=torch.zeros(2), inner={"maps": [torch.zeros(3)], "name": "x"})
    >>> [tuple(tensor.shape) for tensor in answered(out)]
    [(2,), (3,)]
    """
    return list(_walked(value, {}))


def _walked(value: Any, met: dict[int, Any]) -> Iterator[Tensor]:
    """What was met is kept, so that no id is used again."""
    if isinstance(value, CLOSED) or id(value) in met:
        return
    met[id(value)] = value
    if isinstance(value, Tensor):
        yield value
    else:
        for item in _inside(value):
            yield from _walked(item, met)


def _inside(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, Sequence | Set | Iterator):
        return list(value)
    return [*_attributes(value), *_slots(value)]


def _attributes(value: Any) -> list[Any]:
    try:
        return list(vars(value).values())
    except TypeError:  # a number, or an object with slots
        return []


def _slots(value: Any) -> Iterator[Any]:
    for kind in type(value).__mro__:
        names = vars(kind).get("__slots__", ())
        for name in [names] if isinstance(names, str) else names:
            try:
                yield object.__getattribute__(value, name)
            except AttributeError:  # never set, or private to its class
                continue
