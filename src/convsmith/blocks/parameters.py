"""A block's parameters: fields that say which values they take, and their text read."""

from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, field
from typing import Any

from convsmith.errors import ConvsmithError


@dataclass(frozen=True)
class _Kind:
    """What a parameter may be: how its text is read, which values it takes, and how to say so."""

    read: Callable[[str], Any]
    takes: Callable[[Any], bool]
    says: str


_COUNT = _Kind(int, lambda value: isinstance(value, int) and value >= 1, "a whole number of at least 1")
_COUNT_OR_ZERO = _Kind(int, lambda value: isinstance(value, int) and value >= 0, "a whole number of at least 0")
_FRACTION = _Kind(float, lambda value: isinstance(value, int | float) and 0 <= value < 1, "at least 0 and less than 1")


def count(default: Any = MISSING) -> Any:
    """A dataclass field that holds a whole number of at least 1."""
    return field(default=default, metadata={"kind": _COUNT})


def count_or_zero(default: Any = MISSING) -> Any:
    """A dataclass field that holds a whole number of at least 0, which says that it is to be found."""
    return field(default=default, metadata={"kind": _COUNT_OR_ZERO})


def fraction(default: Any = MISSING) -> Any:
    """A dataclass field that holds a number of at least 0 and less than 1."""
    return field(default=default, metadata={"kind": _FRACTION})


def one_of(*names: str) -> Any:
    """A dataclass field that holds one of some names, the first by default."""
    kind = _Kind(str, lambda value: value in names, f"{', '.join(names[:-1])} or {names[-1]}")
    return field(default=names[0], metadata={"kind": kind})


def check(block: str, parameter: Field[Any], value: object) -> None:
    """Refuse a value that a parameter does not take; raises ConvsmithError."""
    if not parameter.metadata["kind"].takes(value):
        raise _mistake(block, parameter, value)


def _mistake(block: str, parameter: Field[Any], value: object) -> ConvsmithError:
    return ConvsmithError(f"{block}: {parameter.name} must be {parameter.metadata['kind'].says}, got {value}.")


def read(block: str, parameters: Sequence[Field[Any]], texts: list[str]) -> dict[str, Any]:
    """The values of a block's parameters written as `value` (by position) or `name=value`."""
    known = {parameter.name: parameter for parameter in parameters}
    values: dict[str, Any] = {}
    if len(texts) > len(known):
        raise ConvsmithError(f"{block}: {len(texts)} parameters are too many; {usage(block, parameters)}.")
    for position, text in zip(known, texts, strict=False):
        key, equals, value = (part.strip() for part in text.partition("="))
        key = key.lower()  # ranks are R in formulas
        if not equals:
            key, value = position, text.strip()
        if key not in known:
            raise ConvsmithError(f"{block}: unknown parameter {key}; {usage(block, parameters)}.")
        if key in values:
            raise ConvsmithError(f"{block}: {key} is given twice; {usage(block, parameters)}.")
        try:
            values[key] = known[key].metadata["kind"].read(value)
        except ValueError:
            raise _mistake(block, known[key], repr(value)) from None
    return values


def usage(block: str, parameters: Sequence[Field[Any]]) -> str:
    """How a block is written, for messages."""
    return f"write {block}:{','.join(f'{parameter.name}=..' for parameter in parameters)}"
