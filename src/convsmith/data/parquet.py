"""Folders of `train-*.parquet` and `test-*.parquet`, encoded images and labels, as Hugging Face lays them out."""

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from convsmith.bounds import CLASSES, check_count
from convsmith.data.augment import Augment
from convsmith.data.images import Archive
from convsmith.data.opening import Header, check_file, open_image, read_header
from convsmith.errors import DataError

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label")
IMAGE_TYPES = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_null,
)  # of nothing but gaps, told by their rows
TEST_NAMES = ("test", "validation", "valid", "val")  # the first that has labels


@dataclass(frozen=True, eq=False)
class ParquetImages:
    """The rows of some files: encoded images, labels, class names where the schema tells them, files and first rows."""

    images: pa.ChunkedArray
    labels: tuple[int, ...]
    names: tuple[str, ...] | None
    files: tuple[Path, ...]
    starts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return open_image(self._encoded(index), self.where(index)), self.labels[index]

    def header(self, index: int) -> Header:
        """Mode and size, undecoded."""
        return read_header(self._encoded(index), self.where(index))

    def _encoded(self, index: int) -> bytes:
        encoded: bytes | None = self.images[index].as_py()
        if encoded is None:
            raise DataError(f"{self.where(index)}: holds no image bytes; write the files with the images embedded.")
        return encoded

    def where(self, index: int) -> str:
        """Name the file and its row."""
        place = bisect_right(self.starts, index) - 1
        return f"{self.files[place]} row {index - self.starts[place]}"


def holds_parquet(folder: Path) -> bool:
    """Tell whether a folder holds `train-*.parquet` or `test-*.parquet` files."""
    return any(folder.glob("train-*.parquet")) or any(folder.glob("test-*.parquet"))


def open_parquet(folder: Path, label_columns: Sequence[str] = LABEL_COLUMNS) -> Archive:
    """Open both halves; encoded images stay in memory. Raises ConvsmithError on missing files, columns or labels.

    Columns: `img` or `image` = {bytes, path} or bytes, and the first of `label_columns` that is there. Class names come
    from the schema's `huggingface` entry; without one, classes are numbered up to the largest label.
    """
    train = _open_half(folder, "train", label_columns)
    test, notes = _open_test(folder, label_columns)
    names = train.names or _numbered(max(train.labels + test.labels), folder)
    return Archive(names, None, Augment(), train, test, notes)


def _numbered(largest: int, folder: Path) -> tuple[str, ...]:
    """Names of classes that have none."""
    check_count(largest + 1, CLASSES, f"{folder}: classes, by the largest label")
    return tuple(map(str, range(largest + 1)))


def _open_test(folder: Path, label_columns: Sequence[str]) -> tuple[ParquetImages, tuple[str, ...]]:
    """The half to test on, and which others are passed over: those whose labels are all below zero have none."""
    there = [name for name in TEST_NAMES if any(folder.glob(f"{name}-*.parquet"))] or [TEST_NAMES[0]]
    for place, name in enumerate(there):
        half = _open_half(folder, name, label_columns)
        if max(half.labels) >= 0:
            unlabelled = (f"{other} is not read: it has no labels" for other in there[:place])
            spare = (f"{other} is not read: {name} is tested on" for other in there[place + 1 :])
            return half, (*unlabelled, *spare)
    return _open_half(folder, there[0], label_columns), ()


def _open_half(folder: Path, half: str, label_columns: Sequence[str]) -> ParquetImages:
    files = tuple(sorted(folder.glob(f"{half}-*.parquet")))
    if not files:
        raise DataError(f"{folder}: no {half}-*.parquet files; both train-*.parquet and test-*.parquet are needed.")
    tables = [_read(file) for file in files]
    if not any(len(table) for table in tables):
        raise DataError(f"{files[0]}: holds no rows; give files with images and labels.")
    label = _column(files[0], tables[0].schema, label_columns)
    columns = [_column(files[0], tables[0].schema, IMAGE_COLUMNS), label]
    for file, table in zip(files, tables, strict=True):
        _check(file, table, columns)
    images = pa.chunked_array([chunk for table in tables for chunk in _encoded(table, columns[0]).chunks])
    labels = tuple(value for table in tables for value in table[label].to_pylist())
    starts = accumulate((len(table) for table in tables[:-1]), initial=0)
    return ParquetImages(images, labels, _names(files[0], tables[0].schema, label), files, tuple(starts))


def _read(file: Path) -> pa.Table:
    try:
        return pq.read_table(check_file(file))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a readable Parquet file ({error}); download it again.") from error


def _column(file: Path, schema: pa.Schema, wanted: Sequence[str]) -> str:
    for name in wanted:
        if name in schema.names:
            return name
    raise DataError(f"{file}: has columns {', '.join(schema.names)}; one of {', '.join(wanted)} is needed.")


def _check(file: Path, table: pa.Table, columns: Sequence[str]) -> None:
    for name in columns:
        _column(file, table.schema, [name])
    images, labels = _encoded(table, columns[0]).type, table[columns[1]]
    if not any(kind(images) for kind in IMAGE_TYPES):
        raise DataError(
            f"{file}: column {columns[0]} is {table[columns[0]].type}; images must be {{bytes, path}} or bytes."
        )
    if not pa.types.is_integer(labels.type) or labels.null_count:
        kind = f"{labels.type} with {labels.null_count} gaps"
        raise DataError(f"{file}: column {columns[1]} is {kind}; labels must be whole numbers in every row.")


def _encoded(table: pa.Table, name: str) -> pa.ChunkedArray:
    """The images as bytes, alone or the `bytes` of a record."""
    column = table[name]
    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        return pc.struct_field(column, "bytes")
    return column


def _names(file: Path, schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    """The classes, where the writer has told them; raises ConvsmithError where what it told cannot be read."""
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = described.get("info", {}).get("features", {}).get(label, {}).get("names")
        return tuple(map(str, names)) if names else None
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise DataError(
            f"{file}: its 'huggingface' entry names no classes ({error}); write the file anew, or without that entry."
        ) from error
