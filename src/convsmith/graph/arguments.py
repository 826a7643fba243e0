"""The arguments and answers of ATen calls as they come: bound to names, walked through, changed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def bind(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments by the names of the op's schema, defaults filled in."""
    schema = func._schema.arguments
    given = dict(zip((a.name for a in schema), args, strict=False)) | dict(kwargs)
    given |= {a.name: a.default_value for a in schema if a.has_default_value() and a.name not in given}
    return {a.name: given[a.name] for a in schema if a.name in given}


def in_place(func: Any) -> bool:
    """Whether a call only changes values of its first argument, and answers it."""
    schema = func._schema
    ends = [each[0].alias_info for each in (schema.arguments, schema.returns) if each]
    written = len(ends) == 2 and all(info is not None and info.is_write for info in ends)
    return written and len(schema.returns) == 1 and torch.Tag.inplace_view not in func.tags


def written(func: Any, bound: Mapping[str, Any]) -> Iterator[Tensor]:
    """The tensors that a call writes into."""
    for argument in func._schema.arguments:
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from tensors(bound.get(argument.name))


def tensors(value: Any) -> list[Tensor]:
    """Those in a call's arguments or answer, in order: what torch's own tree functions find in many times the time."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return []
    return [tensor for item in value for tensor in tensors(item)]


def changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """Lists, tuples and dictionaries of arguments, each changed."""
    if isinstance(value, list | tuple):
        items = [changed(item, change) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return {name: changed(item, change) for name, item in value.items()} if isinstance(value, dict) else change(value)
