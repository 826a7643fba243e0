"""The graph of an .onnx or .pt2 file, which can be looked at and measured, but not changed."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from convsmith.errors import CaptureError, FileError
from convsmith.export import load_pt2, reason
from convsmith.graph import Graph
from convsmith.graph.capture import FORWARD_ERRORS, capture
from convsmith.graph.onnx import capture_onnx
from convsmith.graph.onnx.file import Given, settled
from convsmith.pt2 import Input, inputs_of, read_program
from convsmith.registry import Registry

FILES: Registry[Callable[[Path, Given, bool], Graph]] = Registry("kind of model file")


def capture_file(path: str | Path, input: Given = None, *, trust: bool = False) -> Graph:
    """Capture the net in an .onnx or .pt2 file, at batch 1.

    Layers, their module paths, MACs and reach are those of the model that the file was made from. Parameters are too,
    unless the exporter folded some into others.

    Args:
        path: The file; its suffix tells the format.
        input: (channels, height, width), or shapes by the inputs' names, needed where the file leaves sizes open.
        trust: Whether torch may load a .pt2 file, which runs code that the file holds. Without it, files are read as
            data.

    Returns:
        The same graph as `capture` gives.

    Raises:
        ConvsmithError: When the file is missing, of another kind, unreadable, or does not fit the input.

    >>> import tempfile, torch, convsmith as cs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = cs.export(torch.nn.Conv2d(3, 8, 3), f"{folder}/net.onnx", input=(3, 8, 8)).path
    ...     graph = capture_file(path)
    >>> graph.macs
    7776
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"{path}: no such file; check the path.")
    return FILES[path.suffix.lower()](path, input, trust)


def _capture_pt2(path: Path, input: Given, trust: bool) -> Graph:
    model, inputs = _loaded(path) if trust else _read(path)
    shapes = input if isinstance(input, Mapping) else dict.fromkeys(inputs, input)
    if strange := sorted(shapes.keys() - inputs.keys()):
        raise CaptureError(f"{path}: has no input {strange[0]!r}; its inputs are {', '.join(inputs)}.")
    if input is not None and not isinstance(input, Mapping) and len(inputs) != 1:
        raise CaptureError(
            f"{path}: has {len(inputs)} inputs ({', '.join(inputs)}), but --input is the shape of one; "
            "export it with fixed sizes."
        )
    images = [
        torch.empty(settled(name, slot.shape, shapes.get(name), path), dtype=slot.dtype, device="meta")
        for name, slot in inputs.items()
    ]
    return capture(model, *images, name=path.name)


def _read(path: Path) -> tuple[nn.Module, Mapping[str, Input]]:
    program = read_program(path)
    return program, program.inputs


def _loaded(path: Path) -> tuple[nn.Module, Mapping[str, Input]]:
    program = load_pt2(path)
    try:
        return torch.export.unflatten(program), inputs_of(program)
    except FORWARD_ERRORS as error:
        raise FileError(f"{path}: cannot be read ({reason(error)}); export it again.") from error


def _capture_onnx(path: Path, input: Given, trust: bool) -> Graph:
    return capture_onnx(path, input)  # which has no code to be trusted


FILES.add(".onnx", _capture_onnx)
FILES.add(".pt2", _capture_pt2)
