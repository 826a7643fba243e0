"""A split too large to keep decoded: images pass through torch's DataLoader and are cropped one by one."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from convsmith.calibration.variations import flip
from convsmith.data.augment import Augment, cutout
from convsmith.data.images import Stored, read, to_tensor
from convsmith.data.records import Batches, Normalize, Pass, Shape, Split, batch_rows, epoch_seed
from convsmith.errors import ConvsmithError

Transform = Callable[[Image.Image], Image.Image]

DRAWN = 32  # images a worker reads at a time for those that are drawn
CENTRAL = "the central 7/8 scaled to fit, in training a random part"  # what `central` and `random_crop` do


def usable_cores() -> int:
    """Count the processor cores this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows do not tell
        return os.cpu_count() or 1


def central(shape: Shape) -> Transform:
    """Take the central 7/8 of the shorter side, cut to the aspect of (h, w): the usual evaluation on ImageNet."""
    return partial(ImageOps.fit, size=(shape[2], shape[1]), method=Image.Resampling.BILINEAR, bleed=1 / 16)


def random_crop(shape: Shape, augment: Augment) -> Transform:
    """Take a random part of at least `augment.area` of the image, or the central one where that is all of it."""
    if augment.area == 1:
        return central(shape)
    from torchvision.transforms import v2  # 1.5 s of import that decoded sets need not wait for

    crop: Transform = v2.RandomResizedCrop(shape[1:], scale=(augment.area, 1.0))
    return crop


@dataclass(frozen=True, eq=False)
class _Crops(Dataset[tuple[Tensor, int]]):
    """Cropped uint8 images (c, h, w) and labels; one image's crop depends on the pass and its index alone."""

    stored: Stored
    shape: Shape
    classes: int
    transform: Transform
    seed: int

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = read(self.stored, index, self.shape, self.classes)
        with torch.random.fork_rng(devices=()):  # without workers this is the trained net's own generator
            torch.default_generator.manual_seed(epoch_seed(self.seed, index))
            return to_tensor(self.transform(image)), label


@dataclass(frozen=True, eq=False)
class StreamSplit(Split):
    """Stored images, the number of classes, the shape (c, h, w) to give, normalization, and worker processes."""

    stored: Stored
    classes: int
    shape: Shape
    normalize: Normalize
    workers: int

    def __len__(self) -> int:
        return len(self.stored)

    def batches(self, size: int, *, share: tuple[int, int] = (0, 1), device: torch.device | str = "cpu") -> Batches:
        """Every image once, its central part, in the stored order; the last batch may be short."""
        rows = list(torch.split(torch.arange(len(self)), size))[share[0] :: share[1]]
        for images, labels in self._load(central(self.shape), 0, rows, device):
            yield self.normalize(images), labels

    def drawn(self, count: int, *, seed: int) -> Tensor:
        """The first `count` images of the plain pass 0, as uint8 (n, c, h, w)."""
        pass_seed = epoch_seed(seed, 0)
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(pass_seed))[:count]
        rows = [*torch.split(order, DRAWN)]
        return torch.cat([images for images, _ in self._load(central(self.shape), pass_seed, rows, "cpu")])

    def run(self, each: Pass) -> Batches:
        """One training pass: parts drawn by the workers, the rest of the augmentation here."""
        drawn, generator = epoch_seed(each.seed, each.epoch), each.generator()
        order = torch.randperm(len(self), generator=generator)
        rows = [batch[each.share[0] :: each.share[1]] for batch in batch_rows(order, each.size)]
        for images, labels in self._load(random_crop(self.shape, each.augment), drawn, rows, each.device):
            yield self.normalize(vary(images, each.augment, generator)), labels

    def _load(self, transform: Transform, seed: int, rows: list[Tensor], device: torch.device | str) -> Batches:
        crops = _Crops(self.stored, self.shape, self.classes, transform, seed)
        return load(crops, device, batch_sampler=[batch.tolist() for batch in rows], num_workers=self.workers)


def vary(images: Tensor, augment: Augment, generator: torch.Generator) -> Tensor:
    """Mirror and blacken parts of images (n, c, h, w) that are cropped already."""
    if augment.flip:
        images = flip(images, generator)
    return cutout(images, augment.cutout, generator) if augment.cutout else images


def load(
    dataset: Dataset[tuple[Tensor, int]], device: torch.device | str, **settings: Any
) -> Iterator[tuple[Tensor, Tensor]]:
    """Run a DataLoader and move its batches to the device; a worker's ConvsmithError is raised as it was."""
    pinned = torch.device(device).type == "cuda"
    loader = DataLoader(dataset, pin_memory=pinned, generator=torch.Generator(), **settings)  # leaves torch's own alone
    try:
        for images, labels in loader:
            yield images.to(device, non_blocking=pinned), labels.to(device, non_blocking=pinned)
    except ConvsmithError as error:
        # A worker sends its whole traceback for a message; the sentence is the last line.
        told = f"{type(error).__module__}.{type(error).__qualname__}: "
        raise type(error)(str(error.args[0]).splitlines()[-1].removeprefix(told)) from error
