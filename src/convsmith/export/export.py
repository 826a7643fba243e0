"""Export a model to a file that other runtimes read, kept only when it computes what the model computes."""

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from convsmith.calibration.calibrate import IMAGES, Images, take_images
from convsmith.calibration.pictures import alone
from convsmith.errors import DataError, FileError
from convsmith.export.int8 import evaluated, to_int8
from convsmith.export.records import Accuracy, ExportCheck
from convsmith.files import whole
from convsmith.formats import FORMATS, ORT_ERRORS, Run, evaluation_copy, other_precision, placed, quiet, reason, trace
from convsmith.graph.capture import FORWARD_ERRORS
from convsmith.graph.signature import Shapes, Signature, each_shape
from convsmith.graph.wrappers import unwrapped
from convsmith.progress import Progress, silent
from convsmith.text import times
from convsmith.zoo import input_of

TOLERANCE = 1e-4  # largest error allowed, relative to the output's largest value, for float32
CHECKED_BATCHES = (1, 3)

EXPORT_ERRORS: tuple[type[Exception], ...] = (
    *FORWARD_ERRORS, NameError, *ORT_ERRORS, onnx.checker.ValidationError,
)  # fmt: skip


def export(
    model: nn.Module,
    path: str | Path,
    *,
    input: Shapes | None = None,
    int8: Images | None = None,
    images: int = IMAGES,
    metadata: Mapping[str, str] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> ExportCheck:
    """Write a model in evaluation mode to an .onnx, .pt2 or .pt file, and check the file against the model.

    Batches of any size run; the image size is fixed. The file stands alone. Rolling pointwise convolutions become plain
    ATen operators, and batch normalization is folded into convolutions in ONNX. The model is left as it was; one of
    float16, bfloat16 or float64 is written in float32, which a note tells. A .pt file is the plain state dict, which
    torch loads with `weights_only=True`.

    With images to calibrate on, an .onnx file has 8-bit weights and activations. The layers that cause most of the
    output's error stay in float where it would be more than a tenth.

    Args:
        model: Any module.
        path: Where to write; the suffix tells the format.
        input: (channels, height, width); by default what a zoo net was built for, else 3, 224, 224. Of a net of several
            inputs their shapes by the names of forward's arguments, or in order.
        int8: Images to calibrate 8-bit integers on, as `apply` takes them; None for a float file. Of a data set with
            labels, accuracy on its test images is told.
        images: How many of them.
        metadata: Texts by name that the file is to tell of itself, beside its `input` and the version of this package:
            `metadata_props` of ONNX, `metadata.json` among the extra files of a .pt2.
        seed: Draws the random images that model and file are compared on, and those to calibrate on.
        progress: Told how far quantizing is.

    Returns:
        The file's size in bytes, and its largest error against the model at batch 1 and 3. Of an int8 file the error
        over the calibration images, the layers that stay in float, and accuracy where there are labels.

    Raises:
        ConvsmithError: When the suffix is unknown, the folder cannot be written, the model cannot be exported, or the
            file's output is off by more than TOLERANCE. Of an int8 file, when images do not fit. No file is left then.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     check = export(nn.Conv2d(3, 8, 3), f"{folder}/net.onnx", input=(3, 8, 8))
    ...     small = export(nn.Conv2d(3, 8, 3), f"{folder}/net.int8.onnx", input=(3, 8, 8), int8=torch.rand(4, 3, 8, 8))
    >>> check.format, check.max_rel_error < 1e-4, small.precision, small.output_error < 0.1
    ('onnx', True, 'int8', True)
    """
    path, input = Path(path), input or input_of(unwrapped(model))
    about = {"input": json.dumps(input), "convsmith_version": version("convsmith")} | dict(metadata or {})
    if int8 is None:
        return _checked(model, path, path, input, about, seed)
    if path.suffix.lower() != ".onnx":
        raise FileError(f"{path}: int8 files are ONNX files; give a name that ends in .onnx.")
    image, *others = each_shape(input)
    if others:
        raise DataError("int8: the model takes several inputs, and is calibrated on images alone; leave int8 out.")
    taken = take_images(int8, images, seed, len(image) - 1)
    if (own := tuple(alone(taken[:1]).shape[1:])) != image:
        raise DataError(f"int8: the images are {times(own)}, and the model reads {times(image)}; give others.")
    with TemporaryDirectory() as folder:
        source = _checked(model, Path(folder) / "float.onnx", path, input, about, seed)
        before = evaluated(source.path, int8, progress)  # first, as it may refuse the labels
        small = to_int8(source, path, taken, progress)
        after = evaluated(path, int8, progress)
        told = Accuracy(before.top1, after.top1, after.images) if before and after else None
        return replace(small, accuracy=told)


def _checked(
    model: nn.Module, path: Path, told: Path, input: Shapes, about: Mapping[str, str], seed: int
) -> ExportCheck:
    """Write a float file, `told` in messages, that computes what the model computes."""
    form = FORMATS[path.suffix.lower()]
    try:
        with whole(path) as draft, quiet():
            replica = evaluation_copy(model)
            call = Signature.of_shapes(replica, input)
            program = trace(replica, call)
            opset = form.write(program, draft, about)
            absolute, relative = _errors(form.load(program, draft), replica, call, seed)
            size = draft.stat().st_size
            if not relative <= TOLERANCE:  # also true for nan
                raise FileError(
                    f"{told}: the file's output is off by {relative:.1e} of its largest value, "
                    f"more than {TOLERANCE:.0e}; the forward of {type(model).__name__} must be deterministic, finite "
                    "and float32."
                )
    except EXPORT_ERRORS as error:
        shapes = " and ".join(map(times, each_shape(input)))
        raise FileError(
            f"{told}: {type(model).__name__} cannot be exported on input {shapes}: {reason(error)}; "
            "check the input's shape and the model's forward."
        ) from error
    form_name, note = path.suffix.lower()[1:], other_precision(model)
    return ExportCheck(path, form_name, opset, size, absolute, relative, note=note)


@torch.inference_mode()
def _errors(run: Run, model: nn.Module, call: Signature, seed: int) -> tuple[float, float]:
    """The largest absolute error, and the largest relative to the output's largest value; nan where it has one."""
    generator, pairs = torch.Generator().manual_seed(seed), list[tuple[Tensor, Tensor]]()
    for batch in CHECKED_BATCHES:
        args, named = placed(model, call, call.drawn(batch, generator))
        pairs += zip(run(tree_leaves((args, named))), tree_leaves(model(*args, **named)), strict=True)
    absolute, relative = torch.stack([_error(got, want) for got, want in pairs]).amax(0).tolist()
    return absolute, relative


def _error(got: Tensor, want: Tensor) -> Tensor:
    if got.shape != want.shape:
        raise ValueError(f"the file answers an output of shape {tuple(got.shape)}, not {tuple(want.shape)}")
    gap = (got - want).abs().max()
    return torch.stack([gap, torch.where(gap == 0, 0.0, gap / want.abs().max())])
