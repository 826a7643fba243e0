"""What a user's mistake raises: a sentence that says where, what was got, and what to do, in a class of its kind."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from convsmith.text import printable

LONGEST = 1000  # letters of a sentence; files are quoted in it, and may hold names of any length


class ConvsmithError(Exception):
    r"""A mistake of the user's, told in one sentence; the command line prints it and exits 1.

    >>> str(ConvsmithError("plan.json: not a plan; write one with `convsmith organize`."))
    'plan.json: not a plan; write one with `convsmith organize`.'

    It is one line of what can be printed, whatever was quoted in it, and not longer than LONGEST.

    >>> str(ConvsmithError("net.onnx: has no op 'a\n\x1b[31mb'; export it anew."))
    "net.onnx: has no op 'a [31mb'; export it anew."
    """

    def __str__(self) -> str:
        """The sentence."""
        text = " ".join(printable(Exception.__str__(self)).split())
        return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} .. {text[-LONGEST // 4 :]}"


def reason_of(error: BaseException) -> str:
    """The kind of an error and the first line of what it says, whatever its class makes of that.

    >>> reason_of(KeyError("no such key"))
    "KeyError: 'no such key'"
    """
    silent = traceback.format_exception_only(error)[-1].rstrip().endswith("<exception str() failed>")
    lines = () if silent else (line.strip() for line in str(error).splitlines())
    return f"{type(error).__name__}: {next(filter(None, lines), 'it tells no reason').rstrip('.;')}"


@final
class CaptureError(ConvsmithError):
    """A model that cannot be captured, or not run again call by call."""


class PlanError(ConvsmithError):
    """A plan that cannot be made, or not be applied to this model."""


@final
class BudgetError(PlanError):
    """A budget that is none, or that no plan keeps."""


@final
class DataError(ConvsmithError):
    """Images, labels or statistics that cannot be used, or do not fit the model."""


@final
class FileError(ConvsmithError):
    """A file or folder that cannot be read or written, or does not hold what is looked for."""


@final
class ShapeError(ConvsmithError):
    """A module that is given a tensor of a shape that it does not take."""


@final
class UnknownNameError(ConvsmithError, KeyError):
    """A name that no table holds; a KeyError too, which would print its sentence in quotes.

    >>> str(UnknownNameError("Unknown block 'dw-pv'; did you mean dw-pw?"))
    "Unknown block 'dw-pv'; did you mean dw-pw?"
    """

    __str__ = ConvsmithError.__str__


@contextmanager
def at(layer: str) -> Iterator[None]:
    """Say which layer a mistake is about that is found where its name is not known; its kind stays.

    >>> with at("features.3"):
    ...     raise ConvsmithError("The weight holds NaN; load a sound checkpoint.")
    Traceback (most recent call last):
    convsmith.errors.ConvsmithError: features.3: The weight holds NaN; load a sound checkpoint.
    """
    try:
        yield
    except ConvsmithError as error:
        raise type(error)(f"{layer}: {error}") from error
