"""Labelled images as they are stored, and decoded to one shape."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from convsmith.data.augment import Augment
from convsmith.data.opening import Header
from convsmith.data.records import Normalize, Shape
from convsmith.data.tensors import TensorSplit
from convsmith.errors import DataError

MODES = {1: "L", 3: "RGB"}  # Pillow's name for images of so many channels
CHUNK = 100  # images a thread decodes at a time
SMALL = 64 * 64  # pixels

SCALED = "cut to the aspect and scaled"  # what `resized` does

Fit = Callable[[Image.Image, Shape, str], Image.Image]


class Stored(Protocol):
    """A sequence of (image, label); reading an unreadable image raises ConvsmithError."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, int]: ...

    def header(self, index: int) -> Header:
        """What an image says of itself, read without decoding where that can be."""

    def where(self, index: int) -> str:
        """File or row of an image, as an error message names it."""


@dataclass(frozen=True)
class Archive:
    """A data set before decoding: class names, its augmentation, two halves, and what is to be told of it.

    `known` is the shape (c, h, w) that all images have; None where they say so themselves.
    """

    classes: tuple[str, ...]
    known: Shape | None
    augment: Augment
    train: Stored
    test: Stored
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> Shape:
        """The shape images come in: the first one's size, and one channel where every image of both halves is grey."""
        return self.known or (1 if self.first_colour is None else 3, *self._size)

    @property
    def mixed(self) -> bool:
        """Whether grey images lie before the first one in colour."""
        return self.known is None and bool(self.first_colour)

    @cached_property
    def first_colour(self) -> int | None:
        """The place of the first image in colour, counted through both halves; None where all are grey."""
        headers = (half.header(index) for half in (self.train, self.test) for index in range(len(half)))
        return next((place for place, header in enumerate(headers) if not header.grey), None)

    @cached_property
    def _size(self) -> tuple[int, int]:
        first = self.train.header(0)
        return first.height, first.width


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

    def header(self, index: int) -> Header:
        """That of the image."""
        return Header.of(Image.fromarray(self.images[index]))

    def where(self, index: int) -> str:
        """Name the row."""
        return f"{self.name} row {index}"


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
