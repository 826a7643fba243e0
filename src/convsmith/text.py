"""Sizes as people read them, and text that a terminal prints and never obeys."""

from collections.abc import Iterable


def times(sizes: Iterable[int | None]) -> str:
    """A shape, kernel or map; an open size is a question mark.

    >>> times((64, 32, 32)), times((3, None, None)), times(())
    ('64x32x32', '3x?x?', '')
    """
    return "x".join("?" if size is None else str(size) for size in sizes)


def printable(text: str) -> str:
    r"""A text with a space for whatever is no letter, digit or sign; lines stay lines.

    >>> printable("net\x1b[31m\x07")
    'net [31m '
    """
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)
