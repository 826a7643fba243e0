"""Files written whole or not at all: temporary names beside the targets, then renames."""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from convsmith.errors import FileError

if TYPE_CHECKING:  # takes seconds to import, which the command line need not wait for
    from torch import Tensor

MARK = {"writer": "convsmith"}  # in the header of weights, by which they are known as this program's
DRAFT = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)\.part")


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
    with together(path) as (draft,):
        yield draft


@contextmanager
def together(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Give temporary paths, and move them to `paths`, in order, when all are written: on a full disk none is.

    Raises ConvsmithError, naming the first, when its folder cannot be written.
    """
    for path in paths:
        if not path.name or path.is_dir():
            raise FileError(f"{path}: is a folder; give the name of a file.")
    drafts = tuple(path.with_name(f".{path.name}.{os.getpid()}.part") for path in paths)
    modes: list[int] = []
    made = [folder for path in paths for folder in missing(path.parent)]
    try:
        try:
            for path, draft in zip(paths, drafts, strict=True):
                modes.append(_begin(path, draft))
            yield drafts
            for path, draft, mode in zip(paths, drafts, modes, strict=True):
                draft.chmod(mode)  # some libraries write what only the owner may read
                draft.replace(path)
        finally:
            for draft in drafts[: len(modes)]:
                draft.unlink(missing_ok=True)
            clear(made)
    except (OSError, SafetensorError) as error:
        raise FileError(f"{paths[0]}: cannot be written ({_reason(error)}); choose another folder.") from error


def missing(folder: Path) -> list[Path]:
    """A folder and those above it that are not there, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def clear(made: list[Path]) -> None:
    """Take away the folders that were made and hold nothing."""
    for path in made:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all; raises ConvsmithError when it cannot be written."""
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8")


def save_tensors(tensors: "Mapping[str, Tensor]", draft: Path) -> None:
    """Write tensors as safetensors, marked as this program's."""
    from safetensors.torch import save_file

    save_file(dict(tensors), draft, metadata={"format": "pt", **MARK})


def is_marked(path: Path) -> bool:
    """Whether a file holds tensors that `save_tensors` wrote."""
    try:
        with safe_open(path, framework="pt") as file:
            return MARK.items() <= (file.metadata() or {}).items()
    except (OSError, SafetensorError):
        return False


def sweep(folder: Path, pattern: str = ".*.part") -> None:
    """Remove what processes that were killed had begun to write in a folder."""
    for path in folder.glob(pattern):
        draft = DRAFT.fullmatch(path.name)
        if draft and path.is_file() and not _runs(int(draft["process"])):
            path.unlink(missing_ok=True)


def _begin(path: Path, draft: Path) -> int:
    """Start a draft, and give the mode that its file is to have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, f".{_literal(path.name)}.*.part")
    draft.touch()
    return draft.stat().st_mode


def _literal(name: str) -> str:
    """A name as a pattern that matches it alone."""
    return re.sub(r"([*?[])", r"[\1]", name)


def _runs(process: int) -> bool:
    """Whether another process of that number is there, on this machine."""
    if process == os.getpid() or sys.platform == "win32":  # there an open file cannot be removed
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _reason(error: OSError | SafetensorError) -> str:
    """What the system said: `strerror`, or what is left of it behind a library's own words."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return re.sub(r" \(os error \d+\)$", "", text).split(": ")[-1]
