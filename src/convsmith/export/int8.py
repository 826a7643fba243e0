"""An exported file in 8-bit integers: what suffers from them left in float, the rest judged by outputs and accuracy."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from convsmith.calibration.calibrate import Images
from convsmith.calibration.pictures import Pictures, alone
from convsmith.data import UNLABELLED, Data
from convsmith.errors import FileError
from convsmith.export.records import LARGEST, ExportCheck
from convsmith.export.sensitive import output_error, stay_in_float
from convsmith.files import whole
from convsmith.formats import INPUT, describe, session
from convsmith.progress import Progress, silent
from convsmith.quantize import Feed, quantize
from convsmith.train import Evaluation, evaluate

BATCH = 32
SEARCHED, JUDGED = 64, 32  # images that a search for what suffers calibrates on, and judges by


def to_int8(source: ExportCheck, path: Path, images: Pictures, progress: Progress = silent) -> ExportCheck:
    """Write a float file anew with 8-bit weights and activations, calibrated on images, whole or not at all.

    Where the output's error is larger than LARGEST, the layers that cause most of it stay in float; where all would
    have to, none does.

    Args:
        source: The float file, as `export` told of it.
        path: Where to write.
        images: Images (n, c, h, w) to calibrate on, two or more.
        progress: Told how far the work is.

    Returns:
        What was written, with its error against the float file on the calibration images.

    Raises:
        ConvsmithError: Where there is one image alone.
    """
    feeds = _feeds(images)
    searched, judged = feeds[: SEARCHED // BATCH], feeds[SEARCHED // BATCH :][:1] or feeds[:1]
    with whole(path) as draft:
        progress(f"writing {path.name}", 0, 1)
        quantize(source.path, draft, feeds)
        kept: tuple[str, ...] = ()
        if not output_error(source.path, draft, feeds) <= LARGEST:  # also true for nan
            kept = stay_in_float(source.path, searched, judged, progress)
            if kept:
                quantize(source.path, draft, feeds, kept)
        stored = onnx.load(source.path, load_external_data=False).metadata_props
        describe(draft, {each.key: each.value for each in stored})
        absolute, relative = _largest(source.path, draft, feeds)
        return replace(
            source, path=path, bytes=draft.stat().st_size, max_abs_error=absolute, max_rel_error=relative,
            precision="int8", output_error=output_error(source.path, draft, feeds), in_float=kept,
        )  # fmt: skip


def _feeds(images: Pictures) -> list[Feed]:
    if len(images) < 2:
        raise FileError("int8: got one image; give at least two, which ranges and errors are told from.")
    return [{INPUT: alone(images[start : start + BATCH]).numpy()} for start in range(0, len(images), BATCH)]


def _largest(source: Path, made: Path, feeds: Sequence[Feed]) -> tuple[float, float]:
    """The largest absolute error, and the same relative to the largest value of the output."""
    old, new = (session(path, torch.get_num_threads()) for path in (source, made))
    largest = [0.0, 0.0]
    for feed in feeds:
        for want, got in zip(old.run(None, feed), new.run(None, feed), strict=True):
            largest = [max(largest[0], float(abs(got - want).max())), max(largest[1], float(abs(want).max()))]
    return largest[0], largest[0] / largest[1] if largest[1] else 0.0


def evaluated(path: Path, data: Images, progress: Progress = silent) -> Evaluation | None:
    """How accurate an .onnx file is on the test images of a data set that has labels; None for other images."""
    if not isinstance(data, Data) or data.classes == UNLABELLED or not len(data.test):
        return None
    return evaluate(_Served(path), data.test, device="cpu", progress=progress)


class _Served(nn.Module):
    """An ONNX file as a module, to be evaluated as one."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._runtime = session(path, torch.get_num_threads())

    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self._runtime.run(None, {INPUT: images.numpy()})[0])
