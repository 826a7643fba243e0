"""Files written whole or not at all: a temporary name beside the target, then a rename."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convsmith.errors import FileError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, and move it to `path` when the block ends well.

    Raises ConvsmithError when the folder cannot be written (read-only, full, or a file in its place).

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "sub" / "a.txt"
    >>> with whole(target) as draft:
    ...     _ = draft.write_text("done")
    >>> target.read_text(), [p.name for p in target.parent.iterdir()]
    ('done', ['a.txt'])
    """
    if not path.name or path.is_dir():
        raise FileError(f"{path}: is a folder; give the name of a file.")
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.touch()
            mode = draft.stat().st_mode
            yield draft
            draft.chmod(mode)  # some libraries write what only the owner may read
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"{path}: cannot be written ({error.strerror}); choose another folder.") from error


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all; raises ConvsmithError when it cannot be written."""
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8")
