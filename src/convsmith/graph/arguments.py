"""The arguments and answers of ATen calls as they come: bound to names, walked through, changed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schema:
    """What an op's schema says, read once: torch makes it anew, in tens of microseconds, each time it is asked.

    name: as `aten.conv2d.default`. arguments: their names. defaults: of those that have one. written: arguments that
    a call writes into. in_place: whether it only changes values of its first argument, and answers it. view: whether
    it answers its first argument's memory, and changes nothing.
    """

    name: str
    arguments: tuple[str, ...]
    defaults: Mapping[str, Any]
    written: tuple[str, ...]
    in_place: bool
    view: bool


@lru_cache(maxsize=4096)
def schema_of(func: Any) -> Schema:
    """The schema of an op.

    >>> schema = schema_of(torch.ops.aten.add_.Tensor)
    >>> schema.name, schema.arguments, schema.written, schema.in_place
    ('aten.add_.Tensor', ('self', 'other', 'alpha'), ('self',), True)
    """
    schema = func._schema
    ends = [each[0].alias_info for each in (schema.arguments, schema.returns) if each]
    both = len(ends) == 2 and all(info is not None and info.is_write for info in ends)
    return Schema(
        str(func),
        tuple(a.name for a in schema.arguments),
        {a.name: a.default_value for a in schema.arguments if a.has_default_value()},
        tuple(a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write),
        both and len(schema.returns) == 1 and torch.Tag.inplace_view not in func.tags,
        len(ends) == 2 and all(info is not None and not info.is_write for info in ends),
    )


def bind(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments by the names of the op's schema, defaults filled in."""
    schema = schema_of(func)
    given = {**schema.defaults, **dict(zip(schema.arguments, args, strict=False)), **kwargs}
    return {name: given[name] for name in schema.arguments if name in given}


def written(func: Any, bound: Mapping[str, Any]) -> Iterator[Tensor]:
    """The tensors that a call writes into."""
    for name in schema_of(func).written:
        yield from tensors(bound.get(name))


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
