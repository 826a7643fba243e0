"""A folder is one run's while it writes there: a lock that ends with its process, and drafts of dead ones swept."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from convsmith.errors import ConvsmithError
from convsmith.files import clear, missing, sweep

LOCK = ".convsmith.lock"
TOKEN = uuid4().hex  # of this process: a run within a run knows its own lock by it

if sys.platform == "win32":
    import msvcrt

    def _take(handle: int) -> None:
        """Lock a byte far behind the text, or raise OSError."""
        os.lseek(handle, 1 << 30, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(handle: int) -> None:
        """Lock an open file for this process, or raise OSError."""
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Have a folder for oneself, made where there is none, and free of drafts that killed processes left.

    What is owned already by this process is its own. A folder that was made, and is empty at the end, goes again.
    Raises ConvsmithError where another process writes there, and where nobody can.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "run"
    >>> with owned(folder), owned(folder):
    ...     print([path.name for path in folder.iterdir()])
    ['.convsmith.lock']
    >>> folder.exists()
    False
    """
    made = missing(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _locked(folder)
    except OSError as error:
        clear(made)
        raise ConvsmithError(f"{folder}: cannot be written ({error.strerror}); choose another folder.") from error
    if handle is None:
        yield
        return
    try:
        for pattern in (".*.part", "*/.*.part"):
            sweep(folder, pattern)
        yield
    finally:
        _release(folder, handle)
        clear(made)


def contents(folder: Path) -> list[Path]:
    """What a folder holds but for its lock; nothing where there is none."""
    return sorted(path for path in folder.iterdir() if path.name != LOCK) if folder.is_dir() else []


def _locked(folder: Path) -> int | None:
    """Lock a folder; None where this process has it already."""
    path = folder / LOCK
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _take(handle)
        except OSError as error:
            os.lseek(handle, 0, os.SEEK_SET)
            owner = os.read(handle, 1000).decode(errors="replace").split()
            os.close(handle)
            if owner == _me():
                return None
            who = f" (process {owner[1]} on {owner[2]})" if len(owner) == 3 else ""
            sentence = f"another run is writing there{who}; wait for its end, or choose another folder"
            raise ConvsmithError(f"{folder}: {sentence}.") from error
        if _same(path, handle):
            break
        os.close(handle)  # its owner removed it between the two calls
    try:
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, " ".join(_me()).encode())
    except OSError:  # a full disk
        _release(folder, handle)
        raise
    return handle


def _me() -> list[str]:
    return [TOKEN, str(os.getpid()), socket.gethostname()]


def _same(path: Path, handle: int) -> bool:
    """Whether a path still names the file that is open."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _release(folder: Path, handle: int) -> None:
    if sys.platform != "win32":  # there an open file cannot be removed
        (folder / LOCK).unlink(missing_ok=True)
    os.close(handle)
