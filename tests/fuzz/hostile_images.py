"""Hostile images: files of six formats changed in bytes, sizes and modes, and Parquet files of such."""

import io
import struct
import zlib
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
from changes import NUMBERS, TEXTS, in_bytes
from hostile_records import NET, plans
from PIL import Image
from pyarrow import parquet

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp", "GIF": ".gif", "WEBP": ".webp", "TIFF": ".tif"}
MODES = ("RGB", "L", "RGBA", "P", "1", "CMYK", "I;16", "F", "LA")


def image(random: Random) -> tuple[str, bytes]:
    """An image file, sound or not: its suffix and bytes."""
    format = random.choice([*FORMATS])
    width, height = random.choice(((8, 8), (32, 32), (1, 1), (1, 900), (37, 21)))
    pixels = np.random.default_rng(random.randrange(99)).integers(0, 255, (height, width, 3), np.uint8)
    made = Image.fromarray(pixels)
    file = io.BytesIO()
    try:
        made.convert(random.choice(MODES) if random.random() < 0.2 else "RGB").save(file, format)
    except (OSError, ValueError, KeyError):  # a mode that the format does not have
        made.save(file, format)
    data, kind = file.getvalue(), random.randrange(30)
    if kind == 0 and format == "PNG":
        data = _sized(data, random)
    elif kind < 3:
        data = in_bytes(data, random)
    suffix = random.choice(list(FORMATS.values())) if kind == 4 else FORMATS[format]
    return suffix, random.choice((b"", b"\x89PNG\r\n\x1a\n", b"<svg/>")) if kind == 5 else data


def _sized(png: bytes, random: Random) -> bytes:
    """A PNG whose head claims another size, with the right checksum."""
    sizes = [min(max(random.choice(NUMBERS), 0), 2**31 - 1) for _ in range(2)]
    head = struct.pack(">II", *sizes) + png[24:29]
    return png[:16] + head + struct.pack(">I", zlib.crc32(png[12:16] + head)) + png[33:]


def image_files(random: Random, folder: Path) -> list[object]:
    """A folder of some, with classes or without, to judge or to calibrate on."""
    labelled = random.random() < 0.5
    places = (
        [folder / "data" / half / name for half in ("train", "test") for name in "ab"]
        if labelled
        else [folder / "data"]
    )
    for number, place in enumerate(places):
        place.mkdir(parents=True)
        for i in range(random.randint(0, 3) if random.random() < 0.2 else 2):
            suffix, data = image(random)
            (place / f"{number}-{i}{suffix}").write_bytes(data)
    _odd_file(random.choice(places), random)
    if labelled:
        return ["evaluate", "own_net:make", "--input", "3,32,32", "--data", f"imagefolder:{folder / 'data'}"]
    plan = folder / "plan.json"
    plan.write_text(plans()[3])
    data = ["--data", f"images:{folder / 'data'}", "--images", random.choice((1, 3, 512))]
    return ["apply", NET[0], plan, *NET[1:], *data, "--out", folder / "out"]


def _odd_file(place: Path, random: Random) -> None:
    kind = random.randrange(8)
    if kind == 0:
        (place / "self.png").symlink_to(place / "self.png")
    elif kind == 1:
        (place / "folder.png").mkdir()
    elif kind == 2:
        (place / "gone.jpg").symlink_to(place / "nothing.jpg")
    elif kind == 3:
        (place / "loop").symlink_to(place)


CELLS: tuple[Any, ...] = (None, "x", {"bytes": None, "path": "/etc/passwd"}, {"x": 1}, b"x", {"bytes": "x"}, 1, [b"x"])
LABELS: tuple[Any, ...] = (-1, 2**40, "a", None, 0.5, [1], 2**63 - 1, 10**6)
NAMES = (("image", "label"), ("img", "fine_label"), ("x", "y"), ("img", "img"), ("label", "img"))


def parquet_files(random: Random, folder: Path) -> list[object]:
    """A data set in the layout of Hugging Face's CIFAR-10, cells, labels, columns, names or bytes of a half changed."""
    data, hostile = folder / "data", random.choice(("train", "test"))
    data.mkdir()
    for split in ("train", "test"):
        kind = random.randrange(7) if split == hostile else -1
        cells: list[Any] = [{"bytes": image(random)[1], "path": random.choice(TEXTS[:7])} for _ in range(4)]
        labels: list[Any] = [random.choice(LABELS)] * 4 if kind == 0 else [0, 1, 2, 9]
        cells = [random.choice(CELLS)] * 4 if kind == 1 else cells
        names, rows = random.choice(NAMES) if kind == 2 else ("img", "label"), 0 if kind == 3 else 4
        file = data / f"{split}-00000-of-00001.parquet"
        told = (
            {"huggingface": random.choice((*TEXTS[:7], '{"info": 3}', '{"info": {"features": []}}'))}
            if kind == 4
            else {}
        )
        table = pa.table([pa.array(cells[:rows]), pa.array(labels[:rows])], names)
        parquet.write_table(table.replace_schema_metadata(told), file)
        if kind == 5:
            file.write_bytes(in_bytes(file.read_bytes(), random))
    return ["evaluate", "own_net:make", "--input", "3,32,32", "--data", data]
