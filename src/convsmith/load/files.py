"""The graph of an .onnx or .pt2 file, which can be looked at and measured, but not changed."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch.export import ExportedProgram

from convsmith.errors import CaptureError, FileError
from convsmith.export import read_pt2
from convsmith.graph import Graph
from convsmith.graph.capture import capture
from convsmith.graph.onnx import capture_onnx
from convsmith.graph.onnx.file import settled
from convsmith.registry import Registry

Shape = tuple[int, ...]

FILES: Registry[Callable[[Path, Shape | None], Graph]] = Registry("kind of model file")


def capture_file(path: str | Path, input: Shape | None = None) -> Graph:
    """Capture the net in an .onnx or .pt2 file, at batch 1.

    input: (channels, *map), needed where the file leaves sizes open. Layers, their module paths, MACs and reach are
    those of the model that the file was made from; so are parameters, but where an exporter folded some into others.
    Raises ConvsmithError when the file is missing, of another kind, unreadable, or does not fit the input.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"{path}: no such file; check the path.")
    return FILES[path.suffix.lower()](path, input)


def _capture_pt2(path: Path, input: Shape | None) -> Graph:
    program = read_pt2(path)
    sizes = _sizes(program)
    if input is not None and len(sizes) != 1:
        raise CaptureError(
            f"{path}: has {len(sizes)} inputs ({', '.join(sizes)}), but --input is the shape of one; "
            "export it with fixed sizes."
        )
    images = [torch.zeros(settled(name, own, input, path)) for name, own in sizes.items()]
    return capture(torch.export.unflatten(program), *images, name=path.name)


def _sizes(program: ExportedProgram) -> dict[str, list[int | None]]:
    """The shapes of a program's inputs, None where they are open."""
    shapes = {node.name: node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder"}
    inputs = (str(name) for name in program.graph_signature.user_inputs)
    return {name: [size if isinstance(size, int) else None for size in shapes[name]] for name in inputs}


FILES.add(".onnx", capture_onnx)
FILES.add(".pt2", _capture_pt2)
