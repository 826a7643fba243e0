"""Sizes as people read them."""

from collections.abc import Iterable


def times(sizes: Iterable[int | None]) -> str:
    """A shape, kernel or map; an open size is a question mark.

    >>> times((64, 32, 32)), times((3, None, None)), times(())
    ('64x32x32', '3x?x?', '')
    """
    return "x".join("?" if size is None else str(size) for size in sizes)
