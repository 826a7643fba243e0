"""Data sets of timm's factory that are only read one after another: `hfids/..`, `tfds/..`, `wds/..`."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset

from convsmith.data.augment import Augment
from convsmith.data.factory import class_names, create, create_test
from convsmith.data.images import MODES, to_tensor
from convsmith.data.opening import naming
from convsmith.data.records import Batches, Data, Normalize, Pass, Shape, Split
from convsmith.data.stream import CENTRAL, DRAWN, Transform, central, load, random_crop, vary
from convsmith.errors import DataError

ITERATED = ("hfids", "tfds", "wds")


@dataclass(frozen=True, eq=False)
class _Crops(IterableDataset[tuple[Tensor, int]]):
    """Cropped uint8 images (c, h, w) and labels, in the reader's order."""

    dataset: Any
    transform: Transform
    name: str

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        found: tuple[Image.Image, int] | None
        rows = iter(self.dataset)
        for place in count():
            with naming(f"{self.name} image {place}"):
                found = next(rows, None)
            if found is None:
                return
            yield to_tensor(self.transform(found[0])), int(found[1])


@dataclass(frozen=True, eq=False)
class ReaderSplit(Split):
    """One split of a set that is read in order; shuffling, and sharing among machines, is its reader's.

    Its order depends on (seed, epoch) and the number of worker processes.
    """

    reference: str
    split: str
    length: int
    classes: int
    shape: Shape
    normalize: Normalize
    workers: int

    def __len__(self) -> int:
        return self.length

    def batches(self, size: int, *, share: tuple[int, int] = (0, 1), device: torch.device | str = "cpu") -> Batches:
        """Every image once, its central part; the last batch of each worker may be short.

        The reader knows the processes and deals the images out itself.
        """
        dataset = self._open(is_training=False, batch_size=size)
        for images, labels in self._load(dataset, central(self.shape), device, batch_size=size):
            yield self.normalize(images), labels

    def drawn(self, count: int, *, seed: int) -> Tensor:
        """The first `count` images of the reader's plain pass 0, as uint8 (n, c, h, w)."""
        dataset = self._open(is_training=True, batch_size=min(count, DRAWN), seed=seed)
        dataset.set_epoch(0)
        taken: list[Tensor] = []
        for images, _ in self._load(dataset, central(self.shape), "cpu", batch_size=min(count, DRAWN)):
            taken.append(images)
            if sum(map(len, taken)) >= count:
                break
        return torch.cat(taken)[:count] if taken else torch.empty(0, *self.shape, dtype=torch.uint8)

    def run(self, each: Pass) -> Batches:
        """One training pass in the reader's shuffled order."""
        mine, generator = each.size // each.share[1], each.generator()
        dataset = self._open(is_training=True, batch_size=mine, seed=each.seed)
        dataset.set_epoch(each.epoch)
        crop = random_crop(self.shape, each.augment)
        for images, labels in self._load(dataset, crop, each.device, batch_size=mine, drop_last=True):
            yield self.normalize(vary(images, each.augment, generator)), labels

    def _open(self, **settings: Any) -> Any:
        dataset = create(self.reference, self.split, input_img_mode=MODES[self.shape[0]], **settings)
        dataset.set_loader_cfg(num_workers=self.workers)
        return dataset

    def _load(self, dataset: Any, transform: Transform, device: torch.device | str, **settings: Any) -> Batches:
        crops = _Crops(dataset, transform, f"{self.reference} {self.split}")
        for images, labels in load(crops, device, num_workers=self.workers, **settings):
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= self.classes:
                bad = low if low < 0 else high
                raise DataError(
                    f"{self.reference}: label {bad} is outside the {self.classes} classes; correct the label."
                )
            yield images, labels


def load_iterated(reference: str, shape: Shape, normalize: Normalize, workers: int) -> Data:
    """Open both splits; raises ConvsmithError when timm cannot, or when the set names no classes."""
    train, (split, test) = create(reference, "train"), create_test(reference)
    classes = class_names(reference, train)
    train_split, test_split = (
        ReaderSplit(reference, name, len(dataset), len(classes), shape, normalize, workers)
        for name, dataset in (("train", train), (split, test))
    )
    return Data(
        reference, classes, shape, normalize.mean, normalize.std, Augment(), train_split, test_split, crop=CENTRAL
    )
