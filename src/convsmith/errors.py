"""The one exception a user's mistake raises: a sentence that says where, what was got, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager


class ConvsmithError(Exception):
    """A mistake of the user's, told in one sentence; the command line prints it and exits 1.

    >>> str(ConvsmithError("plan.json: not a plan; write one with `convsmith organize`."))
    'plan.json: not a plan; write one with `convsmith organize`.'
    """


@contextmanager
def at(layer: str) -> Iterator[None]:
    """Say which layer a mistake is about that is found where its name is not known.

    >>> with at("features.3"):
    ...     raise ConvsmithError("The weight holds NaN; load a sound checkpoint.")
    Traceback (most recent call last):
    convsmith.errors.ConvsmithError: features.3: The weight holds NaN; load a sound checkpoint.
    """
    try:
        yield
    except ConvsmithError as error:
        raise ConvsmithError(f"{layer}: {error}") from error
