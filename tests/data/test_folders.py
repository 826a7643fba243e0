"""Folders of images as they lie: hidden files, halves by other names, no halves at all, colour, and what is told."""

import io
import os
import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from convsmith.cli.app import app
from convsmith.data import load_data
from convsmith.errors import ConvsmithError

CLASSES = ("ant", "bee")


def pixels(seed: int, *, grey: bool = False, side: int = 8) -> Image.Image:
    shape = (side, side) if grey else (side, side, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def put(path: Path, seed: int = 0, *, grey: bool = False, side: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels(seed, grey=grey, side=side).save(path)


def put_classes(folder: Path, count: int, *, classes: tuple[str, ...] = CLASSES, grey: bool = False) -> None:
    for label, name in enumerate(classes):
        for k in range(count):
            put(folder / name / f"{k}.png", 100 * label + k, grey=grey)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images to train on and two to test on in each of two classes."""
    put_classes(tmp_path / "train", 4)
    put_classes(tmp_path / "val", 2)
    return tmp_path


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def renamed(**names: str):
    def change(folder: Path) -> None:
        for old, new in names.items():
            (folder / old).rename(folder / new)

    return change


def linked(folder: Path) -> None:
    """A class that lies elsewhere, with a folder in it that leads back to it."""
    (folder / "train/ant").rename(folder / "ants")
    (folder / "train/ant").symlink_to(folder / "ants")
    (folder / "ants/again").symlink_to(folder / "ants")


# What lies in the folder beside what counts, and what is told of it.
LAYOUTS = {
    "as it is": (lambda f: None, ""),
    "hidden folder of images": (lambda f: put(f / "train/.ipynb_checkpoints/0.png"), "1 hidden files and folders"),
    "hidden folder, empty": (lambda f: (f / "val/.cache").mkdir(), "1 hidden files and folders passed over"),
    "hidden folder in a class": (lambda f: put(f / "train/ant/.thumbs/0.png"), "1 hidden files and folders"),
    "AppleDouble file": (lambda f: write(f / "train/ant/._0.png", b"\0\5\x16\7Mac OS X"), "1 hidden files and folders"),
    "AppleDouble folder": (lambda f: write(f / "train/__MACOSX/ant/._0.png", b"\0\5"), "1 hidden files and folders"),
    "no image": (lambda f: write(f / "train/ant/.DS_Store", b""), ""),
    "flat test": (lambda f: put(f / "test/0.png"), "test is not read: it has no folders of the classes"),
    "test in one folder": (lambda f: put(f / "test/unknown/0.png"), "test is not read: it has no folders of the"),
    "flat valid": (lambda f: put(f / "valid/0.png"), "valid is not read: it has no folders of the classes"),
    "test of another split": (lambda f: put_classes(f / "validation", 1), "validation is not read: val is tested on"),
    "stray images": (lambda f: put(f / "train/0.png"), "1 images of train lie in no class and are passed over"),
    "valid": (renamed(val="valid"), ""),
    "validation": (renamed(val="validation"), ""),
    "capitals": (renamed(train="Train", val="Valid"), ""),
    "training and testing": (renamed(train="Training", val="Testing"), ""),
    "links": (linked, ""),
}  # fmt: skip


@pytest.mark.parametrize(("change", "note"), LAYOUTS.values(), ids=LAYOUTS)
def test_what_lies_beside_the_images_changes_nothing_and_is_told(folder: Path, change, note: str) -> None:
    before = load_data(f"imagefolder:{folder}")
    change(folder)
    data = load_data(f"imagefolder:{folder}")
    assert (data.classes, data.shape) == (CLASSES, (3, 8, 8))
    for half, same in ((data.train, before.train), (data.test, before.test)):
        assert (half.images == same.images).all()
        assert (half.labels == same.labels).all()
    assert "; ".join(data.notes).startswith(note)
    assert bool(data.notes) == bool(note)
    assert all(text in data.summary for text in data.notes)


def test_hidden_files_are_counted_over_both_halves_and_without_labels(folder: Path) -> None:
    for path in ("train/ant/._0.png", "train/ant/._1.png", "val/bee/.x/0.png", "val/.y/0.png"):
        put(folder / "x.png")
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / "x.png").rename(folder / path)
    assert load_data(f"imagefolder:{folder}").notes == ("4 hidden files and folders passed over",)
    data = load_data(f"images:{folder}")
    assert (len(data.train), len(data.test), data.notes) == (12, 0, ("4 hidden files and folders passed over",))
    assert "12 images to train on, 0 to test on; no classes; 3 channels, 8x8 px" in data.summary


# One folder of classes without a split.


def names(split) -> set[str]:
    return {image.numpy().tobytes() for image in split.images}


def test_a_folder_of_classes_alone_is_split_the_same_way_every_time(tmp_path: Path) -> None:
    put_classes(tmp_path, 10)
    put(tmp_path / "test/0.png")
    data, again = load_data(f"imagefolder:{tmp_path}"), load_data(f"imagefolder:{tmp_path}")
    assert (data.classes, len(data.train), len(data.test)) == (CLASSES, 16, 4)
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert names(data.test) == names(again.test)
    assert not names(data.train) & names(data.test)
    assert len(names(data.train) | names(data.test)) == 20
    assert data.notes == (
        "no split found: 20 % of each class drawn to test on by seed 0",
        "test is not read: it has no folders of the classes",
    )


def test_a_new_image_moves_few_others_to_the_other_half(tmp_path: Path) -> None:
    put_classes(tmp_path, 20)
    before = names(load_data(f"imagefolder:{tmp_path}").test)
    put(tmp_path / "ant/new.png", 999)
    assert len(before - names(load_data(f"imagefolder:{tmp_path}").test)) <= 1


def pipe(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def bomb(path: Path, width: int = 20_000, height: int = 20_000) -> None:
    """A PNG that claims so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")
    )


def only(path: str, count: int = 3):
    def change(folder: Path) -> None:
        put_classes(folder / path, count)
        (folder / "train").rename(folder / "other")
        (folder / "val").rename(folder / "elsewhere")

    return change


def one_of_a_class(folder: Path) -> None:
    only(".")(folder)
    for name in ("other", "elsewhere"):
        (folder / name).rename(folder.parent / f"{folder.name}-{name}")
    put(folder / "cat/0.png")


REFUSALS = {
    "no test": (lambda f: (f / "val").rename(f / "other"), r"images of train split write imagefolder:.*/train"),
    "no class folder": (lambda f: [(f / "val" / n).rename(f / f"val-{n}") for n in CLASSES], "val: holds no class"),
    "one class alone": (only("cats"), "or those of two classes or more alone"),
    "one folder too deep": (lambda f: renamed(train="x")(f) or put_classes(f / "a/train", 1), "mean imagefolder:.*/a"),
    "one image of a class": (one_of_a_class, "cat: one image cannot be split"),
    "only hidden images": (lambda f: put(f / "train/cat/.0.png"), "train/cat: holds no image files"),
    "pipe": (lambda f: pipe(f / "train/ant/9.png"), "train/ant/9.png: a pipe or device, not a file"),
    "pipe, deep": (lambda f: pipe(f / "val/bee/x/9.JPG"), "val/bee/x/9.JPG: a pipe or device"),
    "link to nothing": (lambda f: (f / "val/bee/9.png").symlink_to(f / "gone"), "val/bee/9.png: a link to nothing"),
    "link to itself": (lambda f: (f / "val/bee/9.png").symlink_to(f / "val/bee/9.png"), "val/bee/9.png: a link to"),
    "over Pillow's limit": (lambda f: bomb(f / "train/bee/9.png"), r"train/bee/9.png: Image size \(400000000 pixels\)"),
    "first over Pillow's limit": (lambda f: bomb(f / "train/ant/0.png"), r"train/ant/0.png: Image size"),
    "over half the limit": (lambda f: bomb(f / "val/bee/9.png", 9000, 10_000), r"val/bee/9.png: Image size"),
    "empty file": (lambda f: write(f / "train/ant/9.png", b""), "train/ant/9.png: not a readable image"),
    "text": (lambda f: write(f / "train/ant/0.png", b"<html>"), "train/ant/0.png: not a readable image"),
    "cut off": (lambda f: write(f / "val/ant/9.png", (f / "val/ant/1.png").read_bytes()[:80]), "val/ant/9.png: not a"),
    "two sizes": (lambda f: put(f / "val/ant/9.png", side=9), "val/ant/9.png: 9x9 pixels where others have 8x8"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(folder: Path, change, sentence: str) -> None:
    change(folder)
    with pytest.raises(ConvsmithError, match=sentence) as refusal:
        load_data(f"imagefolder:{folder}")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("change", [lambda f: pipe(f / "0.png"), lambda f: bomb(f / "0.png")], ids=["pipe", "bomb"])
def test_images_without_labels_and_streams_refuse_the_same(folder: Path, change) -> None:
    change(folder)
    with pytest.raises(ConvsmithError, match=r"/0.png: (a pipe|Image size)"):
        next(load_data(f"images:{folder}", input=(3, 8, 8), limit=0, workers=0).train.batches(1))


ENDINGS = {"png": {}, "jpg": {}, "bmp": {}, "ppm": {}, "tif": {}, "tiff": {"compression": "tiff_lzw"}, "webp": {}}


@pytest.mark.parametrize("ending", ENDINGS)
def test_files_with_broken_bytes_are_read_or_refused_by_name(tmp_path: Path, ending: str) -> None:
    file = io.BytesIO()
    pixels(0).save(file, Image.registered_extensions()[f".{ending}"], **ENDINGS[ending])
    sound, draw = file.getvalue(), np.random.default_rng(0)
    path = tmp_path / "folder" / f"0.{ending}"
    path.parent.mkdir()
    refused = 0
    for _ in range(60):
        damaged = bytearray(sound)
        for place in draw.integers(0, min(len(sound), 60), 3):
            damaged[place] = draw.integers(256)
        path.write_bytes(damaged[: draw.integers(2, len(sound) + 1)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                load_data(f"images:{path.parent}", input=(3, 8, 8))
            except ConvsmithError as refusal:
                refused += 1
                assert str(refusal).startswith(f"{path}: ")
                assert "\n" not in str(refusal)
    assert refused > 20


# Colour, over the folder.


def grey_first(folder: Path) -> None:
    put(folder / "train/ant/0.png", grey=True)


def grey_but_the_last(folder: Path) -> None:
    put_classes(folder / "train", 4, grey=True)
    put_classes(folder / "val", 2, grey=True)
    put(folder / "val/bee/1.png")


def all_grey(folder: Path) -> None:
    grey_but_the_last(folder)
    put(folder / "val/bee/1.png", grey=True)


COLOURS = {
    "colour": (lambda f: None, 3, 0),
    "first grey": (grey_first, 3, 1),
    "one in colour": (grey_but_the_last, 3, 1),
    "grey": (all_grey, 1, 0),
}


@pytest.mark.parametrize(("change", "channels", "notes"), COLOURS.values(), ids=COLOURS)
def test_images_are_grey_where_all_are(folder: Path, change, channels: int, notes: int) -> None:
    change(folder)
    data = load_data(f"imagefolder:{folder}")
    assert data.shape == (channels, 8, 8)
    assert data.notes == ("grey and colour images: all are read in three channels",) * notes
    assert f"{channels} channel" in data.summary
    assert load_data(f"images:{folder}").shape == data.shape
    assert load_data(f"imagefolder:{folder}", input=(1, 8, 8)).notes == ()


def write_parquet(path: Path, images: list[Image.Image], labels: list[int]) -> None:
    encoded = []
    for image in images:
        file = io.BytesIO()
        image.save(file, "PNG")
        encoded.append(file.getvalue())
    pq.write_table(pa.table({"img": pa.array(encoded, pa.binary()), "label": pa.array(labels)}), path)


def test_rows_are_grey_where_all_are(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-0.parquet", [pixels(0, grey=True), pixels(1)], [0, 1])
    write_parquet(tmp_path / "test-0.parquet", [pixels(2, grey=True)], [0])
    assert load_data(str(tmp_path)).shape == (3, 8, 8)
    write_parquet(tmp_path / "train-0.parquet", [pixels(0, grey=True), pixels(1, grey=True)], [0, 1])
    assert load_data(str(tmp_path)).shape == (1, 8, 8)


def test_rows_of_a_validation_half_stand_in_for_a_test_without_labels(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-0.parquet", [pixels(0), pixels(1)], [0, 1])
    write_parquet(tmp_path / "validation-0.parquet", [pixels(2)], [1])
    assert load_data(str(tmp_path)).test.labels.tolist() == [1]
    write_parquet(tmp_path / "test-0.parquet", [pixels(3)] * 2, [-1, -1])
    data = load_data(str(tmp_path))
    assert (data.test.labels.tolist(), data.notes) == ([1], ("test is not read: it has no labels",))
    (tmp_path / "validation-0.parquet").unlink()
    os.mkfifo(tmp_path / "validation-0.parquet")
    with pytest.raises(ConvsmithError, match=r"validation-0.parquet: a pipe or device"):
        load_data(str(tmp_path))


@pytest.mark.parametrize("damage", [bomb, lambda path: path.write_bytes(b"GIF")], ids=["bomb", "text"])
def test_a_broken_image_of_torchvisions_sets_is_named_by_its_row(folder: Path, damage) -> None:
    damage(folder / "train/ant/2.png")
    with pytest.raises(ConvsmithError, match=r"train row 2: (Image size|not a readable image)"):
        load_data(f"torch/image_folder:{folder}")


# What is told.


def test_the_summary_says_what_was_read(folder: Path) -> None:
    read = f"imagefolder:{folder}: 8 images to train on, 4 to test on; 2 classes (ant, bee); "
    statistics = "mean 0.485, 0.456, 0.406, deviation 0.229, 0.224, 0.225"
    own, scaled = load_data(f"imagefolder:{folder}"), load_data(f"imagefolder:{folder}", input=(3, 4, 6))
    streamed = load_data(f"imagefolder:{folder}", input=(1, 6, 6), mean=(0.5,), std=(0.25,), limit=0, workers=0)
    assert own.summary == f"{read}3 channels, 8x8 px, as they are; {statistics}"
    assert scaled.summary == f"{read}3 channels, 4x6 px, cut to the aspect and scaled; {statistics}"
    central = "the central 7/8 scaled to fit, in training a random part"
    assert streamed.summary == f"{read}1 channel, 6x6 px, {central}; mean 0.5, deviation 0.25"


SMALL = ("own_net:make", "--data", "digits")
COMMANDS = {
    "evaluate": ("evaluate", *SMALL),
    "train": ("train", *SMALL, "--epochs", "0", "--out", "{}/net"),
    "decompose": ("decompose", *SMALL, "--max-macs", "0.9x", "--images", "16"),
    "optimize": ("optimize", *SMALL, "--epochs", "0", "--format", "pt2", "--runtimes", "eager", "--out", "{}/run"),
}


@pytest.mark.parametrize("args", COMMANDS.values(), ids=COMMANDS)
def test_commands_say_what_they_read_before_they_work(tmp_path: Path, args: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [arg.format(tmp_path) for arg in args])
    assert result.exit_code == 0, result.output
    told = [line for line in result.stderr.splitlines() if line.startswith("digits: ")]
    assert told == [load_data("digits").summary]


@pytest.mark.parametrize("shape", ["3,50000,50000", "1,100000000,100000000"])
def test_an_input_without_bound_is_refused_at_once(shape: str) -> None:
    result = CliRunner().invoke(app, ["evaluate", *SMALL, "--input", shape])
    assert result.exit_code == 1
    assert re.search(
        r"^convsmith: input: .* is too large; give (sides of )?at most [\d,]+", result.stderr, re.MULTILINE
    )


OPTIONS = {
    "batches that are no numbers": ("bench", "own_net:make", "--batches", "x"),
    "no batches": ("bench", "own_net:make", "--batches", "0"),
    "a seed beyond 64 bits": ("train", *SMALL, "--out", "nowhere", "--seed", str(10**30)),
    "a negative seed": ("decompose", *SMALL, "--max-macs", "0.9x", "--seed", "-1"),
}


@pytest.mark.parametrize("args", OPTIONS.values(), ids=OPTIONS)
def test_options_that_cannot_be_read_are_wrong_usage(args: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 2
    assert "Invalid value for" in result.stderr
