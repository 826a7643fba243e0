"""A named table that refuses duplicates and suggests the nearest name."""

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Generic, TypeVar

from convsmith.errors import UnknownNameError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A table from names to entries of one kind.

    >>> colors = Registry[int]("color")
    >>> colors.add("red", 0xFF0000)
    16711680
    >>> colors["rad"]
    Traceback (most recent call last):
    convsmith.errors.UnknownNameError: Unknown color 'rad'; did you mean red?
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        """Enter `entry` under `name`; raises ValueError when the name is taken."""
        if name in self._entries:
            raise ValueError(f"{self._kind} {name!r} is registered twice")
        self._entries[name] = entry
        return entry

    def register(self, *names: str) -> Callable[[T], T]:
        """Decorate a function or class to enter it under each of `names`."""

        def enter(entry: T) -> T:
            for name in names:
                self.add(name, entry)
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        if name in self._entries:
            return self._entries[name]
        near = get_close_matches(name, self._entries, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(sorted(self._entries))}."
        raise UnknownNameError(f"Unknown {self._kind} {name!r}; {hint}")

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
