"""Folders of image files: PATH/train/<class>/* and PATH/test/<class>/*, PATH/<class>/*, or without labels PATH/**."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from PIL import Image

from convsmith.data.augment import Augment
from convsmith.data.images import Archive
from convsmith.data.listing import Listing, folders_in, hidden_in, images_in, list_images
from convsmith.data.opening import Header, open_image, read_header
from convsmith.data.records import UNLABELLED
from convsmith.errors import DataError

# Names of halves in any case; the first that has classes is tested on.
TRAIN_FOLDERS = ("train", "training")
TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")
SPLIT_SEED, TEST_SHARE = 0, 0.2  # the same halves for everyone, so that a net is never tested on what it has seen


@dataclass(frozen=True, eq=False)
class FileImages:
    """Image files and their labels."""

    files: tuple[Path, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return open_image(self.files[index], self.where(index)), self.labels[index]

    def header(self, index: int) -> Header:
        """Mode and size, undecoded."""
        return read_header(self.files[index], self.where(index))

    def where(self, index: int) -> str:
        """Name the file."""
        return str(self.files[index])


@dataclass(frozen=True)
class _Half:
    """The files of each class in a folder, and what else is to be told of it."""

    listings: dict[str, Listing]
    notes: tuple[str, ...]
    hidden: int

    def images(self, classes: Sequence[str]) -> FileImages:
        """All files in the order of their classes, labelled."""
        pairs = [(file, classes.index(name)) for name, listing in self.listings.items() for file in listing.files]
        return FileImages(*(tuple(each) for each in zip(*pairs, strict=True)))


def open_folders(folder: Path) -> Archive:
    """List the image files of both halves; the classes are the folders of `train`, in the order of their names.

    The half to test on is called as in TEST_FOLDERS; those without classes of `train` are passed over. A folder of
    classes alone is split: TEST_SHARE of each class is tested on, drawn by SPLIT_SEED from the names of the files.
    Raises ConvsmithError when a half is missing or holds no class, a class no image, or `test` a class of its own.
    """
    trains, tests = _named(folder, TRAIN_FOLDERS), _named(folder, TEST_FOLDERS)
    if not trains:
        return _split(folder, tests)
    if not tests:
        raise _needs(folder, f"; to have the images of {trains[0].name} split write imagefolder:{trains[0]}")
    names = [path.name for path in folders_in(trains[0])]
    labelled = [half for half in tests if {path.name for path in folders_in(half)} & {*names}]
    chosen = (labelled or tests)[0]
    train, test = _half(trains[0], names), _half(chosen, names)
    notes = [f"{half.name} is not read: {_why(half in labelled, chosen)}" for half in tests if half != chosen]
    notes += [f"{half.name} is not read: {trains[0].name} is trained on" for half in trains[1:]]
    notes += [*train.notes, *test.notes, *_passed_over(train.hidden + test.hidden)]
    return Archive(tuple(names), None, Augment(), train.images(names), test.images(names), tuple(notes))


def open_images(folder: Path) -> Archive:
    """List the image files of a folder, at any depth, for what looks at no labels; there is no test half.

    Raises ConvsmithError where there is none.
    """
    listing = list_images(folder)
    train = FileImages(listing.files, (0,) * len(listing.files))
    return Archive(UNLABELLED, None, Augment(), train, FileImages((), ()), _passed_over(listing.hidden))


def _named(folder: Path, names: Sequence[str]) -> list[Path]:
    """The folders in a folder that are called so, in the order of the names."""
    matching = [path for path in folders_in(folder) if path.name.lower() in names]
    return sorted(matching, key=lambda path: names.index(path.name.lower()))


def _why(labelled: bool, chosen: Path) -> str:
    return f"{chosen.name} is tested on" if labelled else "it has no folders of the classes"


def _passed_over(hidden: int) -> tuple[str, ...]:
    return (f"{hidden} hidden files and folders passed over",) if hidden else ()


def _half(half: Path, classes: Sequence[str]) -> _Half:
    folders = folders_in(half)
    for path in folders:
        if path.name not in classes:
            raise DataError(f"{path}: a class that train does not have; remove it or add it there.")
    if not folders:
        raise DataError(f"{half}: holds no class; put the images of each class into a folder of its own.")
    return _listed(half, folders)


def _listed(half: Path, found: Sequence[Path]) -> _Half:
    listings = {path.name: list_images(path) for path in found}
    stray = images_in(half)
    notes = (f"{stray} images of {half.name} lie in no class and are passed over",) if stray else ()
    return _Half(listings, notes, hidden_in(half) + sum(names.hidden for names in listings.values()))


def _split(folder: Path, tests: Sequence[Path]) -> Archive:
    """Both halves of a folder that holds nothing but classes, each with its images directly in it."""
    folders = folders_in(folder)
    others = [path for path in folders if path.name.lower() not in TEST_FOLDERS[:2]]
    flat = [path for path in folders if path not in others]
    if len(others) < 2:
        others, flat = list(folders), []
    if len(others) < 2 or any(folders_in(half) for half in tests) or not all(map(images_in, others)):
        raise _needs(folder, _inner(folders))
    classes = [path.name for path in others]
    whole = _listed(folder, others)
    train, test = (_drawn(folder, whole, test).images(classes) for test in (False, True))
    share = f"{100 * TEST_SHARE:.0f} % of each class"
    notes = [f"no split found: {share} drawn to test on by seed {SPLIT_SEED}", *whole.notes]
    notes += [f"{half.name} is not read: it has no folders of the classes" for half in flat]
    return Archive(tuple(classes), None, Augment(), train, test, (*notes, *_passed_over(whole.hidden)))


def _drawn(folder: Path, whole: _Half, test: bool) -> _Half:
    """One side of the split: of each class the files whose names hash lowest are tested on."""
    listings = {}
    for name, listing in whole.listings.items():
        if len(listing.files) < 2:
            raise DataError(f"{folder / name}: one image cannot be split; add more, or make train and test.")
        drawn = set(sorted(listing.files, key=lambda file: _hash(file.relative_to(folder)))[: _count(listing)])
        listings[name] = Listing(tuple(file for file in listing.files if (file in drawn) == test))
    return _Half(listings, (), 0)


def _count(found: Listing) -> int:
    return max(1, round(TEST_SHARE * len(found.files)))


def _hash(name: Path) -> bytes:
    return sha256(f"{SPLIT_SEED}/{name.as_posix()}".encode(errors="surrogateescape")).digest()


def _needs(folder: Path, hint: str) -> DataError:
    return DataError(
        f"{folder}: needs the folders train and test (or val, valid, validation) with one folder of images per class, "
        f"or those of two classes or more alone{hint}; to fit on images without labels write images:{folder}."
    )


def _inner(found: Sequence[Path]) -> str:
    """Where an archive was unpacked one folder too deep, the folder that was meant."""
    inner = [path for path in found if _named(path, TRAIN_FOLDERS)]
    return f"; did you mean imagefolder:{inner[0]}?" if len(inner) == 1 else ""
