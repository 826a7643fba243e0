"""Data sets of timm's factory that are read by index: `hfds/NAME` and `torch/NAME:FOLDER`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from convsmith.data.augment import Augment
from convsmith.data.images import Archive, Stored
from convsmith.data.opening import Header, naming, open_image, read_header
from convsmith.errors import DataError

TEST_SPLITS = ("validation", "test")  # in this order: the test split of many sets comes without labels


@dataclass(frozen=True, eq=False)
class ReaderImages:
    """Encoded images and labels of a timm reader; read without timm's dataset, which skips the unreadable ones."""

    reader: Any
    name: str

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        file, label = self.reader[index]
        with file:
            return open_image(file.read(), self.where(index)), int(label)

    def header(self, index: int) -> Header:
        """Mode and size, undecoded."""
        file, _ = self.reader[index]
        with file:
            return read_header(file.read(), self.where(index))

    def where(self, index: int) -> str:
        """Name the row."""
        return f"{self.name} row {index}"


@dataclass(frozen=True, eq=False)
class DatasetImages:
    """Images and labels of a torchvision dataset."""

    dataset: Any
    name: str

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        with naming(self.where(index)):
            image, label = self.dataset[index]
        return image, int(label)

    def header(self, index: int) -> Header:
        """That of the image, which torchvision decodes at once."""
        return Header.of(self[index][0])

    def where(self, index: int) -> str:
        """Name the row."""
        return f"{self.name} row {index}"


INDEXED: dict[str, Callable[[Any, str], Stored]] = {
    "hfds": lambda dataset, name: ReaderImages(dataset.reader, name),
    "torch": DatasetImages,
}


def open_indexed(reference: str) -> Archive:
    """Open both splits; raises ConvsmithError when timm cannot, or when the set names no classes."""
    stored, columns = INDEXED[prefix(reference)], _COLUMNS[prefix(reference)]
    settings = columns(create(reference, "train"))
    train, (split, test) = create(reference, "train", **settings), create_test(reference, **settings)
    images = stored(train, f"{reference} train")
    classes = class_names(reference, train)
    return Archive(classes, None, Augment(), images, stored(test, f"{reference} {split}"))


def create(reference: str, split: str, **settings: Any) -> Any:
    """Ask timm's factory for one split; raises ConvsmithError with the factory's reason."""
    from timm.data.dataset_factory import create_dataset

    name, root = split_root(reference)
    try:
        return create_dataset(name, root=root, split=split, **settings)
    except ImportError as error:
        raise DataError(f"{reference}: needs the package {error.name}; install it with pip.") from error
    except (AssertionError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{reference}: timm cannot open the split {split} ({reason}); see its create_dataset."
        ) from error


def create_test(reference: str, **settings: Any) -> tuple[str, Any]:
    """Give the name of the split to test on, and the split: `validation`, or `test` where there is none."""
    try:
        return TEST_SPLITS[0], create(reference, TEST_SPLITS[0], **settings)
    except DataError:
        return TEST_SPLITS[1], create(reference, TEST_SPLITS[1], **settings)


def prefix(reference: str) -> str:
    """Give what stands before the first slash, which tells timm the kind of set."""
    return reference.partition("/")[0]


def split_root(reference: str) -> tuple[str, str | None]:
    """Split `NAME:FOLDER` into timm's name and its root folder, which some sets do without.

    >>> split_root("torch/mnist:downloads"), split_root("hfds/cifar10")
    (('torch/mnist', 'downloads'), ('hfds/cifar10', None))
    """
    name, _, root = reference.partition(":")
    return name, root or None


def class_names(reference: str, dataset: Any) -> tuple[str, ...]:
    """Names of the classes in the order of their labels; raises ConvsmithError when the set tells none.

    A file `classes.txt` in the set's folder, one name a line, comes first: webdataset shards carry numbers only.
    """
    root = split_root(reference)[1]
    listed = Path(root or ".") / "classes.txt"
    if root and listed.is_file():
        return tuple(listed.read_text(encoding="utf-8").splitlines())
    names = _LABELS[prefix(reference)](dataset)
    if not names:
        raise DataError(f"{reference}: tells no class names; write them to {listed}, one a line, in label order.")
    return names


def _hub_columns(dataset: Any) -> dict[str, str]:
    """Name the columns of images and labels; timm expects `image` and `label`, the CIFAR sets have others."""
    there = dataset.reader.dataset.column_names
    label = "fine_label" if "fine_label" in there and "label" not in there else "label"
    return {"input_key": "img" if "img" in there else "image", "target_key": label}


_COLUMNS: dict[str, Callable[[Any], dict[str, str]]] = {"hfds": _hub_columns, "torch": lambda dataset: {}}


def _by_reader(dataset: Any) -> tuple[str, ...]:
    labels: Mapping[str, int] = dataset.reader.class_to_idx
    return tuple(str(name) for name in sorted(labels, key=labels.__getitem__))


_LABELS: dict[str, Callable[[Any], tuple[str, ...]]] = {
    "hfds": _by_reader,
    "hfids": _by_reader,
    "tfds": _by_reader,
    "torch": lambda dataset: tuple(map(str, getattr(dataset, "classes", ()))),
    "wds": _by_reader,
}
