"""What there is by name, read from the tables that it is registered in."""

from collections.abc import Callable, Mapping, Sequence
from inspect import getdoc
from typing import Any

from convsmith.algebra import METHODS
from convsmith.blocks import BLOCKS
from convsmith.latency.targets import RUNTIMES
from convsmith.zoo import NETS

Listed = tuple[Sequence[str], list[tuple[str, ...]]]  # columns and rows


def _nets() -> Listed:
    rows: list[tuple[str, ...]] = [
        (name, ",".join(map(str, net.large.blocks_per_stage)), f"{net.side} px") for name, net in sorted(NETS.items())
    ]
    return ("name", "units per stage", "image"), rows


def _blocks() -> Listed:
    return ("name", "what it is"), [(name, about(block)) for name, block in sorted(BLOCKS.items())]


def _methods() -> Listed:
    rows: list[tuple[str, ...]] = [
        (name, ", ".join(sorted(form.name for form in forms))) for name, forms in METHODS.items()
    ]
    return ("name", "blocks that it fits"), rows


def _targets() -> Listed:
    return ("name", "what it is"), [(name, runtime.what) for name, runtime in RUNTIMES.items()]


LISTS: Mapping[str, Callable[[], Listed]] = {
    "nets": _nets,
    "blocks": _blocks,
    "methods": _methods,
    "targets": _targets,
}


def about(entry: Any) -> str:
    """The first line of an entry's documentation.

    >>> about(Mapping)
    'A Mapping is a generic container for associating key/value'
    """
    return (getdoc(entry) or "").partition("\n")[0]
