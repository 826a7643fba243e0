"""What a loaded data set is: its two splits, class names, image shape and normalization."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from convsmith.data.augment import PLAIN, Augment
from convsmith.errors import DataError

Shape = tuple[int, int, int]  # channels, height, width
Batches = Iterator[tuple[Tensor, Tensor]]  # normalized float images (n, c, h, w) and int64 labels (n,)

UNLABELLED = ("unlabelled",)  # the one class of images that have none
UNCHANGED = "as they are"  # how images are brought to the shape they have
SHOWN = 3  # classes named in a summary

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Normalize:
    """Map bytes to what a net reads: (x / 255 - mean) / std, per channel.

    >>> Normalize((0.5,), (0.25,))(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)).tolist()
    [[[[-2.0, 2.0]]]]
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @classmethod
    def of(cls, channels: int, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> Self:
        """Fill in ImageNet's values, or their mean for one channel; raises ConvsmithError on a wrong count or sign."""
        chosen = cls(_per_channel(channels, mean, IMAGENET_MEAN), _per_channel(channels, std, IMAGENET_STD))
        if len(chosen.mean) != channels or len(chosen.std) != channels:
            got = f"{len(chosen.mean)} means and {len(chosen.std)} deviations"
            raise DataError(f"mean, std: got {got} for {channels}-channel images; give one of each per channel.")
        if min(chosen.std) <= 0:
            raise DataError(f"std: got {chosen.std}; give deviations above zero.")
        return chosen

    def __call__(self, images: Tensor) -> Tensor:
        """Normalize uint8 images (n, c, h, w) to float32."""
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        return images.float().div_(255).sub_(mean).div_(std)


def _per_channel(channels: int, given: tuple[float, ...] | None, usual: tuple[float, ...]) -> tuple[float, ...]:
    if given is not None:
        return tuple(given)
    return (round(sum(usual) / len(usual), 3),) if channels == 1 else usual


@dataclass(frozen=True)
class Pass:
    """One training pass over a split: batches of `size` images, in an order that depends only on (seed, epoch).

    share: (rank, processes), which takes every so many-th image of each batch, for training on many machines.
    """

    size: int
    seed: int
    epoch: int
    augment: Augment
    share: tuple[int, int]
    device: torch.device | str

    def generator(self) -> torch.Generator:
        """What draws the pass, at its start."""
        return torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch))


class Split(ABC):
    """Labelled images of one purpose, handed out in batches of normalized floats.

    classes: their number; labels lie in [0, classes). shape: (c, h, w) of an image. normalize: what makes bytes of an
    image what a net reads.
    """

    classes: int
    shape: Shape
    normalize: Normalize

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def drawn(self, count: int, *, seed: int) -> Tensor:
        """`count` images as bytes (n, c, h, w), fewer where there are no more, in an order that depends on the seed."""

    @abstractmethod
    def batches(self, size: int, *, share: tuple[int, int] = (0, 1), device: torch.device | str = "cpu") -> Batches:
        """Every image once, in the stored order; the last batch may be short.

        `share` = (rank, processes) takes every so many-th batch.
        """

    def shuffled(
        self,
        size: int,
        *,
        seed: int,
        epoch: int,
        augment: Augment = PLAIN,
        share: tuple[int, int] = (0, 1),
        device: torch.device | str = "cpu",
    ) -> Batches:
        """One training pass in an order that depends only on (seed, epoch); a short last batch is left out.

        `share` = (rank, processes) takes every so many-th image of each batch of `size`, for training on many machines.
        """
        return self.run(Pass(size, seed, epoch, augment, share, device))

    @abstractmethod
    def run(self, each: Pass) -> Batches:
        """The batches of a training pass."""


@dataclass(frozen=True)
class Data:
    """A data set: name, class names, image shape (c, h, w), normalization, suitable augmentation, and two splits.

    `crop` says how images are brought to that shape, and `notes` what was passed over or made up when it was read.
    """

    name: str
    classes: tuple[str, ...]
    shape: Shape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment
    train: Split
    test: Split
    crop: str = UNCHANGED
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of the classes; None where images have no labels."""
        return None if self.classes == UNLABELLED else self.classes

    @property
    def summary(self) -> str:
        """What was read, in one line: images, classes, channels, size, normalization, crop and notes.

        >>> from convsmith.data import load_data
        >>> load_data("digits").summary
        'digits: 1437 images to train on, 360 to test on; 10 classes (0, 1, 2, ..); 3 channels, 32x32 px, as they are; \
mean 0.485, 0.456, 0.406, deviation 0.229, 0.224, 0.225'
        """
        channels, height, width = self.shape
        size = f"{channels} channel{'s' * (channels > 1)}, {height}x{width} px, {self.crop}"
        statistics = f"mean {_listed(self.mean)}, deviation {_listed(self.std)}"
        halves = f"{len(self.train)} images to train on, {len(self.test)} to test on"
        return f"{self.name}: {'; '.join([halves, self._classes, size, statistics, *self.notes])}"

    @property
    def _classes(self) -> str:
        if self.classes == UNLABELLED:
            return "no classes"
        named = [*self.classes[:SHOWN], *([".."] if len(self.classes) > SHOWN else [])]
        return f"{len(self.classes)} class{'es' * (len(self.classes) != 1)} ({', '.join(named)})"


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def epoch_seed(seed: int, epoch: int) -> int:
    """Give one seed per (seed, epoch), so that a resumed run draws what an uninterrupted one draws.

    >>> epoch_seed(0, 3), epoch_seed(1, 3)
    (3, 1000006)
    """
    return (seed * 1_000_003 + epoch) % 2**63


def batch_rows(order: Tensor, size: int) -> list[Tensor]:
    """Cut a shuffled order into batches of `size`, without the short rest; a smaller set is one batch.

    Batch statistics of the few images of a rest would be noise.

    >>> [rows.tolist() for rows in batch_rows(torch.arange(5), 2)]
    [[0, 1], [2, 3]]
    """
    whole = len(order) // size * size
    return list(torch.split(order[: whole or len(order)], size))
