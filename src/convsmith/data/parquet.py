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

from convsmith.data.augment import Augment
from convsmith.data.images import Archive
from convsmith.data.opening import Header, check_file, open_image, read_header
from convsmith.errors import DataError

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label")
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
    names = train.names or tuple(map(str, range(max(train.labels + test.labels) + 1)))
    return Archive(names, None, Augment(), train, test, notes)


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
    images = pa.chunked_array([chunk for table in tables for chunk in _encoded(table[columns[0]]).chunks])
    labels = tuple(value for table in tables for value in table[label].to_pylist())
    starts = accumulate((len(table) for table in tables[:-1]), initial=0)
    return ParquetImages(images, labels, _names(tables[0].schema, label), files, tuple(starts))


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
    labels = table[columns[1]]
    if not pa.types.is_integer(labels.type) or labels.null_count:
        kind = f"{labels.type} with {labels.null_count} gaps"
        raise DataError(f"{file}: column {columns[1]} is {kind}; labels must be whole numbers in every row.")


def _encoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column


def _names(schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    names = described.get("info", {}).get("features", {}).get(label, {}).get("names")
    return tuple(names) if names else None
