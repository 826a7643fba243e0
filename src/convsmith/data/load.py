"""A data reference, such as `digits` or `cifar10:PATH`, to a loaded data set."""

from collections.abc import Callable
from math import prod
from pathlib import Path

from convsmith.data.cifar import open_cifar10, open_cifar100
from convsmith.data.digits import open_digits
from convsmith.data.factory import INDEXED, open_indexed, prefix
from convsmith.data.folders import open_folders, open_images
from convsmith.data.images import MODES, SCALED, Archive, Stored, decode, resized, unchanged
from convsmith.data.parquet import holds_parquet, open_parquet
from convsmith.data.readers import ITERATED, load_iterated
from convsmith.data.records import UNCHANGED, Data, Normalize, Shape, Split
from convsmith.data.stream import CENTRAL, StreamSplit, usable_cores
from convsmith.errors import DataError
from convsmith.registry import Registry
from convsmith.text import times

LIMIT = 2 << 30  # bytes; CIFAR takes 150 MB
LARGEST = 1 << 26  # numbers an image: 256 MB in float32

MIXED = ("grey and colour images: all are read in three channels",)

SETS = Registry[Callable[[str], Archive]]("data set")


def load_data(
    reference: str,
    *,
    input: tuple[int, ...] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    limit: int = LIMIT,
    workers: int | None = None,
) -> Data:
    """Load a data set: normalized batches, reproducible per seed and epoch.

    References are `digits`, `cifar10:PATH`, `cifar100:PATH`, `imagefolder:PATH`, `images:PATH`, a folder of Parquet
    files, or one of timm's: `hfds/NAME`, `hfids/NAME`, `tfds/NAME`, `wds/NAME:FOLDER` and `torch/NAME:FOLDER`.

    - `imagefolder:PATH` holds train/CLASS/* and test/CLASS/* (or val, valid, validation). With CLASS/* alone, a fifth
      of the images are tested on.
    - `images:PATH` is a folder of image files without labels, to fit on. It has one class and no test images.

    Args:
        reference: Which data set.
        input: (channels, height, width) to give images in; by default their own, grey if all of them are.
        mean: Per channel, what images are normalized by; by default ImageNet's.
        std: The same of the deviation.
        limit: Sets whose training images take at most so many bytes are kept decoded; others are streamed.
        workers: Processes that decode streamed images; by default one a core.

    Returns:
        The data set; its `summary` says in a line what was read and what was passed over.

    Raises:
        ConvsmithError: On an unknown reference, a missing or empty folder, an image that cannot be read, or a pipe
        among files. On images of several sizes without `input`, and labels outside the classes.

    >>> data = load_data("digits")
    >>> data.shape, len(data.train), len(data.test), data.classes[:3]
    ((3, 32, 32), 1437, 360, ('0', '1', '2'))
    """
    input = _image(input)
    workers = usable_cores() if workers is None else workers
    if prefix(reference) in ITERATED:
        if input is None:
            raise DataError(f"{reference}: is read image by image; give an input shape, such as 3,224,224.")
        return load_iterated(reference, input, Normalize.of(input[0], mean, std), workers)
    archive = _open(reference)
    shape = input or archive.shape
    if prod(shape) > LARGEST:
        raise DataError(f"{reference}: has images of {times(shape)}; give an input shape to scale them to.")
    normalize = Normalize.of(shape[0], mean, std)
    small = len(archive.train) * prod(shape) <= limit
    keep, crop = (_decoded, SCALED if input else UNCHANGED) if small else (_streamed, CENTRAL)
    train, test = (keep(half, archive, input, normalize, workers) for half in (archive.train, archive.test))
    notes = (*archive.notes, *(MIXED if input is None and archive.mixed else ()))
    return Data(
        reference, archive.classes, shape, normalize.mean, normalize.std, archive.augment, train, test, crop, notes
    )


def _decoded(half: Stored, archive: Archive, input: Shape | None, normalize: Normalize, workers: int) -> Split:
    fit = resized if input else unchanged
    return decode(half, input or archive.shape, len(archive.classes), fit, normalize)


def _streamed(half: Stored, archive: Archive, input: Shape | None, normalize: Normalize, workers: int) -> Split:
    if input is None:
        shape, count = times(archive.shape), len(archive.train)
        raise DataError(f"data: {count} images of {shape} are too many to keep decoded; give an input shape.")
    return StreamSplit(half, len(archive.classes), input, normalize, workers)


def _image(shape: tuple[int, ...] | None) -> Shape | None:
    if shape is None:
        return None
    if len(shape) != 3 or shape[0] not in MODES or min(shape) < 1:
        raise DataError(f"input: got {shape}; images have 1 or 3 channels, a height and a width, such as 3,32,32.")
    if prod(shape) > LARGEST:
        raise DataError(f"input: got {shape}, {prod(shape):.1e} numbers an image; give at most {LARGEST:.1e}.")
    channels, height, width = shape
    return channels, height, width


def _open(reference: str) -> Archive:
    name, colon, path = reference.partition(":")
    if prefix(reference) in INDEXED and "/" in reference:
        return open_indexed(reference)
    if not colon and name not in SETS and ("/" in reference or Path(reference).is_dir()):
        return _open_bare(reference)
    return SETS[name](path)


def _folder(path: str, what: str) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the one that holds {what}.")
    return folder


def _open_bare(reference: str) -> Archive:
    folder = _folder(reference, "train-*.parquet and test-*.parquet, or write NAME:PATH")
    if not holds_parquet(folder):
        raise DataError(f"{folder}: holds no train-*.parquet; for folders of images write imagefolder:{folder}.")
    return open_parquet(folder)


@SETS.register("digits")
def _open_digits(path: str) -> Archive:
    if path:
        raise DataError(f"digits:{path}: the digits are built in and take no path; write digits.")
    return open_digits()


def _add(name: str, open_folder: Callable[[Path], Archive]) -> None:
    def open_path(path: str) -> Archive:
        if not path:
            raise DataError(f"{name}: needs its folder; write {name}:PATH.")
        return open_folder(_folder(path, f"the {name} data"))

    SETS.add(name, open_path)


_add("cifar10", open_cifar10)
_add("cifar100", open_cifar100)
_add("imagefolder", open_folders)
_add("images", open_images)
