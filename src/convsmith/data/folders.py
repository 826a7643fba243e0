"""Folders of image files: PATH/train/<class>/* and PATH/test or PATH/val/<class>/*, or without labels PATH/**."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from convsmith.data.augment import Augment
from convsmith.data.images import Archive, open_image, shape_of
from convsmith.errors import DataError

ENDINGS = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
TEST_FOLDERS = ("test", "val", "validation")
UNLABELLED = ("unlabelled",)  # the one class of images that have none


@dataclass(frozen=True, eq=False)
class FileImages:
    """Image files and their labels."""

    files: tuple[Path, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return open_image(self.files[index], self.where(index)), self.labels[index]

    def where(self, index: int) -> str:
        """Name the file."""
        return str(self.files[index])


def open_folders(folder: Path) -> Archive:
    """List the image files of both halves; the classes are the folders of `train`, in the order of their names.

    Raises ConvsmithError when a half is missing or holds no class, a class no image, or `test` a class of its own.
    """
    halves = [folder / name for name in TEST_FOLDERS if (folder / name).is_dir()]
    if not (folder / "train").is_dir() or not halves:
        raise DataError(
            f"{folder}: needs the folders train and test (or val), with one folder of images per class; to fit on "
            f"images without labels write images:{folder}."
        )
    classes = tuple(sorted(path.name for path in (folder / "train").iterdir() if path.is_dir()))
    train, test = _list(folder / "train", classes), _list(halves[0], classes)
    return Archive(classes, shape_of(train[0][0]), Augment(), train, test)


def open_images(folder: Path) -> Archive:
    """List the image files of a folder, at any depth, for what looks at no labels; there is no test half.

    Raises ConvsmithError where there is none.
    """
    files = _files(folder)
    train = FileImages(files, (0,) * len(files))
    return Archive(UNLABELLED, shape_of(train[0][0]), Augment(), train, FileImages((), ()))


def _files(folder: Path) -> tuple[Path, ...]:
    found = tuple(sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS))
    if not found:
        raise DataError(f"{folder}: holds no image files ({', '.join(sorted(ENDINGS))}); fill or remove it.")
    return found


def _list(half: Path, classes: tuple[str, ...]) -> FileImages:
    files: list[Path] = []
    labels: list[int] = []
    for folder in sorted(path for path in half.iterdir() if path.is_dir()):
        if folder.name not in classes:
            raise DataError(f"{folder}: a class that train does not have; remove it or add it there.")
        found = _files(folder)
        files += found
        labels += [classes.index(folder.name)] * len(found)
    if not files:
        raise DataError(f"{half}: holds no class; put the images of each class into a folder of its own.")
    return FileImages(tuple(files), tuple(labels))
