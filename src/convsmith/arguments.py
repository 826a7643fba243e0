"""What a verb is given, held against what its signature asks for: a wrong type is told in a sentence."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import Parameter, signature
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from convsmith.errors import ConvsmithError

P = ParamSpec("P")
T = TypeVar("T")

MANY = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
NUMBERS: Mapping[Any, Any] = {int: Integral, float: Real}
WORDS = {
    int: "a whole number", float: "a number", bool: "True or False", str: "a text", NoneType: "None", Path: "a path",
}  # fmt: skip


def checked(verb: Callable[P, T]) -> Callable[P, T]:
    """The same function, which raises ConvsmithError on an argument of a type that it does not take.

    A text is taken for a path where one is asked for.

    >>> def double(number: int, times: int = 1) -> int:
    ...     return number * 2**times
    >>> checked(double)(3)
    6
    >>> checked(double)("3")
    Traceback (most recent call last):
    convsmith.errors.ConvsmithError: double: number is '3', of type str; give a whole number.
    """
    asked = signature(verb)

    @wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        hints = get_type_hints(verb)
        try:
            given = asked.bind(*args, **kwargs)
        except TypeError:  # one is missing, or too many: Python's own words name it
            return verb(*args, **kwargs)
        for name, value in given.arguments.items():
            hint, kind = hints.get(name, Any), asked.parameters[name].kind
            if isinstance(value, str) and not fits(value, hint) and fits(Path(value), hint):
                given.arguments[name] = Path(value)
                continue
            each = value.values() if kind is Parameter.VAR_KEYWORD else value
            for one in each if kind in MANY else (value,):
                check(verb.__name__, name, one, hint)
        return verb(*given.args, **given.kwargs)

    return run


def check(who: str, name: str, value: Any, hint: Any) -> None:
    """Raise ConvsmithError unless a value is of the type that is asked for."""
    if not fits(value, hint):
        got = repr(value)
        short = f"{got}, " if len(got) <= 40 and "\n" not in got else ""
        what = f"{short}of type {type(value).__name__}"
        raise ConvsmithError(f"{who}: {name} is {what}; give {words(hint)}.")


def check_fields(record: Any) -> None:
    """The same for a record, whose fields are what it was made of."""
    hints = get_type_hints(type(record))
    for name, value in vars(record).items():
        check(type(record).__name__, name, value, hints.get(name, Any))


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type; what a hint says beyond the common ones is taken to hold.

    >>> fits(3, float), fits([3, 4], tuple[int, ...]), fits("ab", Sequence[str]), fits({"a": 1}, Mapping[str, str])
    (True, True, False, False)
    """
    kind, args = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return any(fits(value, arg) for arg in args)
    if kind is Literal:
        return isinstance(value, tuple({type(arg) for arg in args}))  # which of them is the verb's to say
    if hint in NUMBERS:
        return isinstance(value, NUMBERS[hint]) and not isinstance(value, bool)
    if kind is Callable:
        return callable(value)
    if isinstance(kind, type):
        return _holds(value, kind, args)
    return not isinstance(hint, type) or _is(value, hint)


def _holds(value: Any, kind: type, args: Sequence[Any]) -> bool:
    """Whether a value is a container of this kind, and holds what it should; a text is none."""
    if isinstance(value, str | bytes):
        return False
    if issubclass(kind, tuple):
        if not isinstance(value, tuple | list):
            return False
        wanted = [args[0]] * len(value) if args[-1:] == (...,) else args
        return len(value) == len(wanted) and all(map(fits, value, wanted))
    if not _is(value, kind):
        return False
    if isinstance(value, Mapping):
        return all(fits(key, args[0]) and fits(each, args[1]) for key, each in value.items())
    return not isinstance(value, Sequence) or all(fits(each, args[0]) for each in value)


def _is(value: Any, kind: type) -> bool:
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol that cannot be looked at
        return True


def words(hint: Any) -> str:
    """A type as a reader calls it.

    >>> words(float | str | None), words(tuple[int, int]), words(Mapping[str, str])
    ('a number, a text or None', '2 in a row, each a whole number', 'a mapping of a text to a text')
    """
    kind, args = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        *others, last = dict.fromkeys(map(words, args))
        return f"{', '.join(others)} or {last}" if others else last
    if kind is Literal:
        return " or ".join(map(str, args))
    if kind is Callable:
        return "something to call"
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return f"a mapping of {words(args[0])} to {words(args[1])}"
    if isinstance(kind, type) and issubclass(kind, tuple) and args[-1:] != (...,):
        return f"{len(args)} in a row, each {words(args[0])}"
    if isinstance(kind, type):
        return "several in a row" + (f", each {words(args[0])}" if args and args[0] is not Any else "")
    name = hint.__name__ if isinstance(hint, type) else str(hint)
    return WORDS.get(hint) or f"a{'n' if name[0] in 'AEIOU' else ''} {name}"
