"""Python's search for garbage, put off while many small records are made at once."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_back() -> Iterator[None]:
    """Look for no garbage meanwhile: a search goes through all of torch, and may take longer than what is done.

    >>> with kept_back():
    ...     gc.isenabled()
    False
    >>> gc.isenabled()
    True
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
