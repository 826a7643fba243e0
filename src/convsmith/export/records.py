"""What is known of a written file."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from convsmith.files import write_text

EXPORTS = "exports.json"  # what a folder tells of its files
# The largest relative error of an int8 file's output for which no layer is left in float. Nets that int8 suits have
# less with all of their layers in it; several times as much costs points of accuracy.
LARGEST = 0.1
ONNX, INT8 = "model.onnx", "model.int8.onnx"


@dataclass(frozen=True)
class Accuracy:
    """Top-1 in [0, 1] of the float file and of the int8 file, over so many test images."""

    fp32: float
    int8: float
    images: int


@dataclass(frozen=True)
class ExportCheck:
    """A written file, and its largest error against the model.

    Errors of float files are over random inputs of batch 1 and 3, those of int8 files over the calibration images.

    Attributes:
        path: The file.
        format: The name of its format, `onnx`, `pt2` or `pt`.
        opset: The opset of ONNX; None for other formats.
        bytes: The file's size.
        max_abs_error: The largest difference to the output of the model in evaluation mode.
        max_rel_error: The same, relative to the largest value of that output.
        precision: `fp32`, or `int8` where weights and activations are.
        output_error: Of int8 files, the root of the output's squared error over what outputs differ by among images.
        in_float: Of int8 files, the layers that suffer too much and stay in float.
        accuracy: Of int8 files, top-1 before and after, where the images have labels.
        note: That the model's own weights are of another type, where they are.
    """

    path: Path
    format: str
    opset: int | None
    bytes: int
    max_abs_error: float
    max_rel_error: float
    precision: str = "fp32"
    output_error: float | None = None
    in_float: tuple[str, ...] = ()
    accuracy: Accuracy | None = None
    note: str = ""

    @property
    def line(self) -> str:
        """The same in one line."""
        told = f"{self.path}: {self.bytes / 1e6:.2f} MB"
        note = f"; {self.note}" if self.note else ""
        if self.output_error is None:
            return f"{told}, largest relative error {self.max_rel_error:.1e}{note}"
        told += f", int8, output error {100 * self.output_error:.1f} %"
        if self.accuracy is not None:
            before, after = 100 * self.accuracy.fp32, 100 * self.accuracy.int8
            told += f", top-1 {before:.2f} % -> {after:.2f} % ({after - before:+.2f} points)"
        return told + self._float + note

    @property
    def off(self) -> bool:
        """Whether this is an int8 file whose output is off by more than layers in float could make good."""
        return self.output_error is not None and not (self.in_float or self.output_error <= LARGEST)

    @property
    def _float(self) -> str:
        if not self.in_float:
            return "; that is much, and no layers in float make it less: int8 does not suit the net" * self.off
        few = ", ".join(self.in_float[:3]) + ", .." * (len(self.in_float) > 3)
        return f"; {len(self.in_float)} layers stay in float ({few})"

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"path": str(self.path)}


def files_of(formats: Sequence[str]) -> list[str]:
    """The files of formats by name; `torch` is the state dict and the program.

    >>> files_of(["onnx", "torch"])
    ['model.onnx', 'model.pt', 'model.pt2']
    """
    names = (part for name in formats for part in (("pt", "pt2") if name.strip() == "torch" else (name.strip(),)))
    return list(dict.fromkeys(f"model.{name}" for name in names))


def keep_record(checks: Sequence[ExportCheck], folder: Path) -> None:
    """Tell of the files that were written in a folder, beside what is told of others there."""
    own = [check.to_dict() | {"path": check.path.name} for check in checks]
    names = {record["path"] for record in own}
    others = [record for record in _told(folder) if record["path"] not in names]
    write_text(folder / EXPORTS, json.dumps([*others, *own], indent=1) + "\n")


def _told(folder: Path) -> list[dict[str, Any]]:
    """The records in a folder; none where there are none that can be read, as they are made anew."""
    try:
        found = json.loads((folder / EXPORTS).read_text(encoding="utf-8"))
        return [each for each in found if (folder / each["path"]).is_file()]
    except (OSError, ValueError, TypeError, KeyError):
        return []
