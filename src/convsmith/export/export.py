"""Export a model to a file that other runtimes read, kept only when it computes what the model computes."""

from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from convsmith.errors import FileError
from convsmith.export.formats import FORMATS, Run, evaluation_copy, trace
from convsmith.export.records import ExportCheck
from convsmith.export.runtime import ORT_ERRORS, quiet, reason
from convsmith.files import whole
from convsmith.graph.capture import FORWARD_ERRORS
from convsmith.graph.wrappers import unwrapped
from convsmith.text import times
from convsmith.zoo import input_of

TOLERANCE = 1e-4  # largest error allowed, relative to the output's largest value, for float32
CHECKED_BATCHES = (1, 3)

EXPORT_ERRORS: tuple[type[Exception], ...] = (*FORWARD_ERRORS, *ORT_ERRORS, onnx.checker.ValidationError)


def export(model: nn.Module, path: str | Path, *, input: tuple[int, ...] | None = None, seed: int = 0) -> ExportCheck:
    """Write a model in evaluation mode to an .onnx or .pt2 file, and check the file against the model.

    Batches of any size run; the image size is fixed. The file stands alone. Rolling pointwise convolutions become plain
    ATen operators, and batch normalization is folded into convolutions in ONNX. The model is left as it was.

    Args:
        model: Any module.
        path: Where to write; the suffix tells the format.
        input: (channels, height, width); by default what a zoo net was built for, else 3, 224, 224.
        seed: Draws the random images that model and file are compared on.

    Returns:
        The file's size in bytes, and its largest error against the model at batch 1 and 3.

    Raises:
        ConvsmithError: When the suffix is unknown, the folder cannot be written, the model cannot be exported, or the
            file's output is off by more than TOLERANCE. No file is left then.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     check = export(nn.Conv2d(3, 8, 3), f"{folder}/net.onnx", input=(3, 8, 8))
    >>> check.format, check.max_rel_error < 1e-4
    ('onnx', True)
    """
    path, input = Path(path), input or input_of(unwrapped(model))
    form = FORMATS[path.suffix.lower()]
    generator = torch.Generator().manual_seed(seed)
    images = [torch.randn(batch, *input, generator=generator) for batch in CHECKED_BATCHES]
    try:
        with whole(path) as draft, quiet():
            replica = evaluation_copy(model)
            opset = form.write(trace(replica, input), draft)
            absolute, relative = _errors(form.load(draft), replica, images)
            size = draft.stat().st_size
            if not relative <= TOLERANCE:  # also true for nan
                raise FileError(
                    f"{path}: the file's output is off by {relative:.1e} of its largest value, "
                    f"more than {TOLERANCE:.0e}; the forward of {type(model).__name__} must be deterministic, finite "
                    "and float32."
                )
    except EXPORT_ERRORS as error:
        raise FileError(
            f"{path}: {type(model).__name__} cannot be exported on input {times(input)}: {reason(error)}; "
            "check the input's shape and the model's forward."
        ) from error
    return ExportCheck(path, path.suffix.lower()[1:], opset, size, absolute, relative)


@torch.inference_mode()
def _errors(run: Run, model: nn.Module, images: list[Tensor]) -> tuple[float, float]:
    """The largest absolute error, and the largest relative to the output's largest value; nan where it has one."""
    pairs = [pair for x in images for pair in zip(run(x), tree_leaves(model(x)), strict=True)]
    absolute, relative = torch.stack([_error(got, want) for got, want in pairs]).amax(0).tolist()
    return absolute, relative


def _error(got: Tensor, want: Tensor) -> Tensor:
    if got.shape != want.shape:
        raise ValueError(f"the file answers an output of shape {tuple(got.shape)}, not {tuple(want.shape)}")
    gap = (got - want).abs().max()
    return torch.stack([gap, torch.where(gap == 0, 0.0, gap / want.abs().max())])
