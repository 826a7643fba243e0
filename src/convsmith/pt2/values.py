"""The arguments of a .pt2 graph's calls: each a dictionary of one entry, which tells its kind."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from convsmith.pt2.archive import DTYPES, UnsafeError

LAYOUTS = {7: torch.strided}
FORMATS = {
    1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format,
}  # fmt: skip


@dataclass(frozen=True)
class Ref:
    """A value made earlier in the graph."""

    name: str


@dataclass(frozen=True)
class Part:
    """A graph inside the graph, for an operator that runs it."""

    graph: Mapping[str, Any]


def kind_of(argument: Mapping[str, Any]) -> tuple[str, Any]:
    """An argument's kind and content; raises ValueError where it has not exactly one."""
    ((kind, content),) = argument.items()
    return kind, content


def value_of(argument: Mapping[str, Any]) -> Any:
    """An argument as a Python value, with a Ref in the place of each tensor or size that the graph makes.

    >>> value_of({"as_tensors": [{"name": "x"}, {"name": "y"}]})
    [Ref(name='x'), Ref(name='y')]
    >>> value_of({"as_sym_ints": [{"as_name": "s"}, {"as_int": 3}]})
    [Ref(name='s'), 3]
    """
    kind, content = kind_of(argument)
    if kind not in KINDS:
        raise UnsafeError(f"an argument of kind {kind[:40]}")
    return KINDS[kind](content)


def _of(*types: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, types):
            raise TypeError(f"{value!r:.40} is no {types[0].__name__}")
        return value

    return read


def _each(read: Callable[[Any], Any]) -> Callable[[Sequence[Any]], list[Any]]:
    return lambda values: [read(value) for value in _of(list)(values)]


def _number(value: Any) -> float:
    """A float; infinities and NaN are kept as text."""
    return float(_of(float, int, str)(value))


def _tensor(value: Mapping[str, Any]) -> Ref:
    return Ref(_of(str)(value["name"]))


def _size(value: Mapping[str, Any]) -> Any:
    kind, content = kind_of(value)
    return Ref(_of(str)(content)) if kind == "as_name" else _of(int, float, bool)(content)


def _perhaps(value: Mapping[str, Any]) -> Ref | None:
    kind, content = kind_of(value)
    return None if kind == "as_none" else _tensor(content)


# What a kind's content says. Devices are all the CPU: a file made on a GPU is read where there is none.
KINDS: dict[str, Callable[[Any], Any]] = {
    "as_none": lambda value: None,
    "as_tensor": _tensor,
    "as_tensors": _each(_tensor),
    "as_nested_tensors": _each(_each(_tensor)),
    "as_optional_tensor": _perhaps,
    "as_optional_tensors": _each(_perhaps),
    "as_int": _of(int),
    "as_ints": _each(_of(int)),
    "as_int_lists": _each(_each(_of(int))),
    "as_float": _number,
    "as_floats": _each(_number),
    "as_float_lists": _each(_each(_number)),
    "as_bool": _of(bool),
    "as_bools": _each(_of(bool)),
    "as_string": _of(str),
    "as_strings": _each(_of(str)),
    "as_complex": lambda value: complex(_number(value["real"]), _number(value["imag"])),
    "as_sym_int": _size,
    "as_sym_ints": _each(_size),
    "as_sym_bool": _size,
    "as_sym_bools": _each(_size),
    "as_sym_float": _size,
    "as_sym_floats": _each(_size),
    "as_scalar_type": DTYPES.__getitem__,
    "as_memory_format": FORMATS.__getitem__,
    "as_layout": LAYOUTS.__getitem__,
    "as_device": lambda value: torch.device("cpu"),
    "as_graph": lambda value: Part(value["graph"]),
}
