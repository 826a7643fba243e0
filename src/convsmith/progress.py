"""Who is told how far long work is."""

from collections.abc import Callable

# What is being done ("fitting layer1.0.conv1"), how many steps of it are over, and of how many in all.
Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""
