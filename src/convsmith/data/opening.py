"""Encoded images, in files or in memory, opened with Pillow: what cannot be read is refused by its name."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from convsmith.errors import DataError

GREY = {"1", "L", "LA"}  # Pillow's modes of one channel, opaque or not
DEEP = {"I", "F", "I;16", "I;16L", "I;16B"}  # Pillow clips these to 8 bits without a word
TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)
# What Pillow's readers raise on bytes that are no image of their kind.
BROKEN = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, struct.error, MemoryError)


@dataclass(frozen=True)
class Header:
    """What an image says of itself before it is decoded: Pillow's mode, and its sides in pixels."""

    mode: str
    height: int
    width: int

    @classmethod
    def of(cls, image: Image.Image) -> "Header":
        """That of an open image."""
        return cls(image.mode, image.height, image.width)

    @property
    def grey(self) -> bool:
        """Whether it has one channel."""
        return self.mode in GREY


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Turn what Pillow raises inside into a ConvsmithError that names `where` the image lies."""
    try:
        yield
    except TOO_LARGE as error:
        raise DataError(f"{where}: {_sentence(error)}; scale the image down or remove it.") from error
    except BROKEN as error:
        raise DataError(f"{where}: not a readable image ({_sentence(error)}); replace or remove it.") from error


def open_image(source: bytes | Path, where: str) -> Image.Image:
    """Decode a JPEG, PNG or other file of 8 bits a channel; raises ConvsmithError naming `where` it lies."""
    with naming(where), Image.open(_readable(source, where)) as image:
        image.load()
    if image.mode in DEEP:
        raise DataError(f"{where}: an image of mode {image.mode}; convert it to 8 bits a channel.")
    return image


def read_header(source: bytes | Path, where: str) -> Header:
    """Read mode and size without decoding; raises ConvsmithError as `open_image`."""
    with naming(where), Image.open(_readable(source, where)) as image:
        return Header.of(image)


def check_file(path: Path) -> Path:
    """Give back the path of a file; raises ConvsmithError on what is none, such as a pipe, which would be waited on."""
    if not path.is_file():
        what = "a link to nothing" if path.is_symlink() and not path.exists() else "a pipe or device, not a file"
        raise DataError(f"{path}: {what}; replace or remove it.")
    return path


def _readable(source: bytes | Path, where: str) -> BytesIO | Path:
    return BytesIO(source) if isinstance(source, bytes) else check_file(source)


def _sentence(error: BaseException) -> str:
    """An error's message as part of a line."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
