"""Labelled images as they are stored: opened with Pillow, checked, and decoded to one shape."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from convsmith.data.augment import Augment
from convsmith.data.records import Normalize, Shape
from convsmith.data.tensors import TensorSplit
from convsmith.errors import DataError

MODES = {1: "L", 3: "RGB"}  # Pillow's name for images of so many channels
GREY = {"1", "L", "LA"}
DEEP = {"I", "F", "I;16", "I;16L", "I;16B"}  # Pillow clips these to 8 bits without a word
CHUNK = 100  # images a thread decodes at a time
SMALL = 64 * 64  # pixels

Fit = Callable[[Image.Image, Shape, str], Image.Image]


class Stored(Protocol):
    """A sequence of (image, label); reading an unreadable image raises ConvsmithError."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, int]: ...

    def where(self, index: int) -> str:
        """File or row of an image, as an error message names it."""


@dataclass(frozen=True)
class Archive:
    """A data set before decoding: class names, the shape (c, h, w) it comes in, its augmentation, and two halves."""

    classes: tuple[str, ...]
    shape: Shape
    augment: Augment
    train: Stored
    test: Stored


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images already decoded: uint8 (n, h, w) or (n, h, w, 3), one label each, and the set's name."""

    images: NDArray[np.uint8]
    labels: tuple[int, ...]
    name: str

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[index]), self.labels[index]

    def where(self, index: int) -> str:
        """Name the row."""
        return f"{self.name} row {index}"


def open_image(source: bytes | Path, where: str) -> Image.Image:
    """Decode a JPEG, PNG or other file of 8 bits a channel; raises ConvsmithError naming `where` it lies."""
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's own, for a broken PNG a SyntaxError
        raise DataError(f"{where}: not a readable image ({error}); replace or remove it.") from error
    if image.mode in DEEP:
        raise DataError(f"{where}: an image of mode {image.mode}; convert it to 8 bits a channel.")
    return image


def shape_of(image: Image.Image) -> Shape:
    """Shape (c, h, w) of an image: one channel where it is grey, else three."""
    return (1 if image.mode in GREY else 3, image.height, image.width)


def resized(image: Image.Image, shape: Shape, where: str) -> Image.Image:
    """Cut the longer side evenly to the wanted aspect and scale bilinearly to (h, w)."""
    size = (shape[2], shape[1])
    return image if image.size == size else ImageOps.fit(image, size, Image.Resampling.BILINEAR)


def unchanged(image: Image.Image, shape: Shape, where: str) -> Image.Image:
    """Give back an image of the wanted size; raises ConvsmithError on any other."""
    if image.size != (shape[2], shape[1]):
        got, wanted = f"{image.height}x{image.width}", f"{shape[1]}x{shape[2]}"
        raise DataError(f"{where}: {got} pixels where others have {wanted}; give an input shape to resize them to.")
    return image


def read(stored: Stored, index: int, shape: Shape, classes: int) -> tuple[Image.Image, int]:
    """Read one image, in the channels of `shape`, and its label; raises ConvsmithError on a label that has no class."""
    image, label = stored[index]
    if not 0 <= label < classes:
        raise DataError(f"{stored.where(index)}: label {label} is outside the {classes} classes; correct the label.")
    return image.convert(MODES[shape[0]]), label


def to_tensor(image: Image.Image) -> Tensor:
    """Turn a grey or RGB image into uint8 (c, h, w)."""
    pixels = torch.from_numpy(np.array(image))  # (h, w) or (h, w, 3)
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def decode(stored: Stored, shape: Shape, classes: int, fit: Fit, normalize: Normalize) -> TensorSplit:
    """Decode a whole half into one uint8 tensor; raises ConvsmithError on the first bad image."""
    images = torch.empty(len(stored), *shape, dtype=torch.uint8)
    labels = torch.empty(len(stored), dtype=torch.int64)

    def fill(start: int) -> None:
        for index in range(start, min(start + CHUNK, len(stored))):
            image, labels[index] = read(stored, index, shape, classes)
            images[index] = to_tensor(fit(image, shape, stored.where(index)))

    # Threads wait for each other on small images: two took 1.5 times as long as one on CIFAR's.
    with ThreadPoolExecutor(1 if shape[1] * shape[2] <= SMALL else None) as pool:
        for _ in pool.map(fill, range(0, len(stored), CHUNK)):
            pass  # the loop raises what a thread raised
    return TensorSplit(images, labels, classes, normalize)
