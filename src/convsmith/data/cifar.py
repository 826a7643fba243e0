"""CIFAR-10 and CIFAR-100 in the form that torchvision keeps on disk, or as Parquet files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from convsmith.data.augment import Augment
from convsmith.data.images import Archive, ArrayImages
from convsmith.data.parquet import holds_parquet, open_parquet
from convsmith.errors import DataError


def open_cifar10(folder: Path) -> Archive:
    """Open CIFAR-10 (Krizhevsky, 2009): 50,000 train and 10,000 test images of 3x32x32 in 10 classes."""
    from torchvision.datasets import CIFAR10

    return open_parquet(folder, ["label"]) if holds_parquet(folder) else _open_batches(CIFAR10, folder)


def open_cifar100(folder: Path) -> Archive:
    """Open CIFAR-100 (Krizhevsky, 2009) with its 100 fine labels; sizes as CIFAR-10."""
    from torchvision.datasets import CIFAR100

    return open_parquet(folder, ["fine_label", "label"]) if holds_parquet(folder) else _open_batches(CIFAR100, folder)


def _open_batches(dataset: Callable[..., Any], folder: Path) -> Archive:
    try:
        halves = [dataset(folder, train=train, download=False) for train in (True, False)]
    except RuntimeError as error:
        layout = "torchvision's unpacked archive or train-*.parquet and test-*.parquet files"
        raise DataError(f"{folder}: {error}; it must hold {layout}.".replace(". You can use", ", or use")) from error
    train, test = (ArrayImages(half.data, tuple(half.targets), str(folder)) for half in halves)
    return Archive(tuple(halves[0].classes), (3, 32, 32), Augment(), train, test)
