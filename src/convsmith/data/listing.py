"""What lies in a folder: its image files and folders, without the hidden ones, which are counted."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from convsmith.data.opening import check_file
from convsmith.errors import DataError

ENDINGS = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
SYSTEM = {"__MACOSX", "@eaDir"}  # of zip files made on macOS, and of Synology's disks


@dataclass(frozen=True)
class Listing:
    """The image files under a folder, sorted, and how many hidden ones and hidden folders were passed over.

    Hidden is what begins with a dot, such as `.ipynb_checkpoints` and the `._x.png` of macOS, and what SYSTEM names.
    """

    files: tuple[Path, ...]
    hidden: int = 0


def list_images(folder: Path) -> Listing:
    """List image files at any depth, by their endings; links are followed, each folder once.

    Raises ConvsmithError where there is none, and on pipes and links to nothing that are named as images.
    """
    files: list[Path] = []
    hidden = 0
    open_folders, seen = [folder], set[tuple[int, int]]()
    while open_folders:
        current = open_folders.pop()
        if (place := _place(current)) in seen:
            continue
        seen.add(place)
        for entry in _entries(current):
            if _is_dir(entry):
                open_folders += [] if is_hidden(entry.name) else [Path(entry.path)]
                hidden += is_hidden(entry.name)
            elif is_image(entry.name):
                files += [] if is_hidden(entry.name) else [_file(entry)]
                hidden += is_hidden(entry.name)
    if not files:
        raise DataError(f"{folder}: holds no image files ({', '.join(sorted(ENDINGS))}); fill or remove it.")
    return Listing(tuple(sorted(files)), hidden)


def folders_in(folder: Path) -> tuple[Path, ...]:
    """The folders directly in a folder, sorted by name, without the hidden ones."""
    names = (entry.name for entry in _entries(folder) if _is_dir(entry) and not is_hidden(entry.name))
    return tuple(folder / name for name in sorted(names))


def images_in(folder: Path) -> int:
    """How many image files lie directly in a folder."""
    return sum(is_image(entry.name) and not is_hidden(entry.name) for entry in _entries(folder))


def hidden_in(folder: Path) -> int:
    """How many hidden folders, and hidden files named as images, lie directly in a folder."""
    return sum(is_hidden(entry.name) and (_is_dir(entry) or is_image(entry.name)) for entry in _entries(folder))


def is_hidden(name: str) -> bool:
    """Whether a name is one that people do not see."""
    return name.startswith(".") or name in SYSTEM


def is_image(name: str) -> bool:
    """Whether a name ends as those of images do."""
    return name[name.rfind(".") :].lower() in ENDINGS


def _file(entry: os.DirEntry[str]) -> Path:
    return check_file(Path(entry.path))


def _is_dir(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link that leads to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _place(folder: Path) -> tuple[int, int]:
    """What tells a folder from others, whatever links lead there."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); give one that you can read.") from error
