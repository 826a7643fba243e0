"""How large a net may be: what files and options ask for is refused before anything of that size is made."""

from collections.abc import Sequence
from math import prod

from convsmith.errors import ConvsmithError
from convsmith.text import times

ELEMENTS = 1 << 30  # of one input
TENSOR = 1 << 34  # of any tensor that a file's net makes
SIDE = 1 << 20  # of a map: what is seen is told position by position
CHANNELS = 1 << 14  # of one input: what is seen is told channel by channel
CLASSES = 500_000
MADE = 1 << 40  # of any tensor that a net makes where it is captured on shapes
FLAT = 1 << 23  # of one axis of such a tensor: what is seen is told channel by channel
TABLES = 1 << 26  # numbers that a net makes of its own in one run, which have values when it is captured
NUMBERED = 1 << 24  # numbers of the inputs of a net that is captured on numbers
RUN = 1 << 28  # numbers that a net makes beyond those it reads, where it is captured on numbers
UNITS = 1000  # of one stage, and copies of one unit


def check_input(shape: Sequence[int], what: str = "input") -> None:
    """Refuse an input (channels, *map) that no net is analyzed on.

    Raises ConvsmithError that names the size and the largest there may be.

    >>> check_input((3, 224, 224))
    >>> check_input((3, 50000, 50000))
    Traceback (most recent call last):
    convsmith.errors.ConvsmithError: input: 3x50000x50000 is too large; give at most 1,073,741,824 numbers.
    """
    told = times(shape)
    if shape and shape[0] > CHANNELS and len(shape) > 1:
        raise ConvsmithError(f"{what}: {told} has too many channels; give at most {CHANNELS:,}.")
    if max(shape, default=0) > SIDE:
        raise ConvsmithError(f"{what}: {told} is too large; give sides of at most {SIDE:,}.")
    if prod(shape) > ELEMENTS:
        raise ConvsmithError(f"{what}: {told} is too large; give at most {ELEMENTS:,} numbers.")


def check_tensor(shape: Sequence[int], what: str) -> None:
    """Refuse a tensor (batch, channels, *map) that no net makes.

    >>> check_tensor((1, 3, 8, 10**8), "pad")
    Traceback (most recent call last):
    convsmith.errors.ConvsmithError: pad: it would make a tensor of 1x3x8x100000000; give a smaller --input.
    """
    largest = max(shape[1:], default=0)
    if prod(shape) > MADE or largest > FLAT or (len(shape) > 3 and max(shape[2:]) > SIDE):
        raise ConvsmithError(f"{what}: it would make a tensor of {times(shape)}; give a smaller --input.")


def check_count(count: int | None, most: int, what: str) -> None:
    """Refuse more classes, units or copies than a net may have; None is what it has by itself.

    >>> check_count(10**12, CLASSES, "classes")
    Traceback (most recent call last):
    convsmith.errors.ConvsmithError: classes: got 1,000,000,000,000; give at most 500,000.
    """
    if count is not None and count > most:
        raise ConvsmithError(f"{what}: got {count:,}; give at most {most:,}.")
