"""Which own code a folder may name: what the user has named before, as it lies in the same file.

A folder's model.json is written by whoever made the folder, so what it names runs only where the user has run it. That
is by giving the reference on the command line or to `load`, or by consent, `--trust`. Both are kept in a file of the
user's.
"""

import json
import os
import sys
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path

from convsmith.errors import ConvsmithError
from convsmith.files import write_text

MOST = 1000  # references kept, the newest


class Known:
    """The references that the user has followed, each with the file it was in; kept in the user's state folder."""

    def __init__(self) -> None:
        self._here: list[list[str]] = []  # of this process, should the file not be writable

    def holds(self, reference: str) -> bool:
        """Whether a reference was followed before, and would be found in the same file now; imports nothing."""
        return [reference, source_file(reference)] in [*self._here, *self._kept()]

    def add(self, reference: str) -> None:
        """Keep a reference that was followed by the user's own wish; nothing where it lies in no file."""
        entry = [reference, source_file(reference)]
        kept = self._kept()
        if not entry[1] or entry in kept:
            return
        self._here.append(entry)
        with suppress(ConvsmithError):  # where it cannot be kept, the next process asks again
            write_text(self._file, json.dumps([*kept, entry][-MOST:], indent=1) + "\n")

    @property
    def _file(self) -> Path:
        home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return Path(home).expanduser() / "convsmith" / "own-code.json"

    def _kept(self) -> list[list[str]]:
        try:
            kept = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return kept if isinstance(kept, list) else []


KNOWN = Known()


def source_file(reference: str) -> str:
    """The file that a reference's code lies in, its package's where it has one; empty where there is none.

    >>> Path(source_file("json.decoder:JSONDecoder")).parts[-2:]
    ('json', '__init__.py')
    >>> source_file("sys:exit")
    ''
    """
    name = reference.partition(":")[0]
    if name.endswith(".py"):
        path = Path(name).expanduser()
        return str(path.resolve()) if path.is_file() else ""
    top = name.partition(".")[0]
    if top in sys.modules:
        place = vars(sys.modules[top]).get("__file__") or next(iter(vars(sys.modules[top]).get("__path__", ())), "")
    else:
        spec = PathFinder.find_spec(top, [str(Path.cwd()), *sys.path])
        place = "" if spec is None else spec.origin or next(iter(spec.submodule_search_locations or ()), "")
    return str(Path(place).resolve()) if place else ""
