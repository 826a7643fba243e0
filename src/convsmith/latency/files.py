"""What the files of models take: their inputs by name, type and size, and numbers to run them on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import helper

from convsmith.bounds import ELEMENTS
from convsmith.errors import ConvsmithError
from convsmith.pt2 import Input

Shape = tuple[int, ...]

BATCHES = (1, 32)
Size = int | str | None  # fixed, of a name that others share, or open


@dataclass(frozen=True)
class Slot:
    """One input of a file: its name, its numbers' type, its sizes, batch included."""

    name: str
    dtype: np.dtype[Any]
    sizes: tuple[Size, ...]


def slots_of(path: Path) -> tuple[Slot, ...]:
    """The inputs of an .onnx file; none where it cannot be read, which the runtime then tells better."""
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (DecodeError, OSError, ValueError):
        return ()
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if not all(value.type.HasField("tensor_type") for value in inputs):
        raise ConvsmithError(f"{path}: takes more than tensors; give the file of a net that takes tensors alone.")
    return tuple(Slot(value.name, _dtype(value, path), _sizes(value)) for value in inputs)


def _dtype(value: onnx.ValueInfoProto, path: Path) -> np.dtype[Any]:
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
    except (KeyError, TypeError, ValueError) as error:
        raise ConvsmithError(f"{path}: the type of its input {value.name!r} is not known; write it anew.") from error
    if dtype.kind in "OUS":
        raise ConvsmithError(f"{path}: its input {value.name!r} is text; give the file of a net that takes numbers.")
    return dtype


def _sizes(value: onnx.ValueInfoProto) -> tuple[Size, ...]:
    return tuple(
        dim.dim_value if dim.dim_value > 0 else dim.dim_param or None for dim in value.type.tensor_type.shape.dim
    )


def slots_of_program(inputs: Mapping[str, Input]) -> tuple[Slot, ...]:
    """The inputs of a .pt2 file; their types are those of whole or other numbers."""
    return tuple(
        Slot(name, np.dtype(np.float32 if each.dtype.is_floating_point else np.int64), each.shape)
        for name, each in inputs.items()
    )


def image_of(slots: Sequence[Slot], path: Path) -> Shape:
    """The shape of one image, (channels, *map); raises ConvsmithError where the first input leaves sizes open."""
    sizes = slots[0].sizes[1:] if slots else ()
    fixed = tuple(size for size in sizes if isinstance(size, int))
    if not fixed or len(fixed) < len(sizes):
        what = f"the size {_by(sizes)} of its input {slots[0].name!r}" if sizes else "the size of its input"
        raise ConvsmithError(f"{path}: {what} is open; give --input C,H,W.")
    return fixed


def batches_of(files: Sequence[Sequence[Slot]]) -> tuple[int, ...]:
    """The batches to measure files at: what all are fixed at, else one image and a few."""
    fixed = {slots[0].sizes[0] if slots and slots[0].sizes else None for slots in files}
    return tuple(size for size in fixed if isinstance(size, int) and len(fixed) == 1) or BATCHES


def feeds_of(slots: Sequence[Slot], images: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Numbers for every input of a file: the images, (batch, channels, *map), for the first, as many for the others.

    Raises ConvsmithError on a batch or size other than the file's, and where a size stays open.
    """
    first, *others = slots
    _require_fit(first, images.shape)
    names = {name: size for name, size in zip(first.sizes, images.shape, strict=False) if isinstance(name, str)}
    feeds = {first.name: _numbers(first.dtype, images)}
    generator = np.random.default_rng(0)
    for slot in others:
        shape = _filled(slot, names, len(images))
        if np.prod(shape, dtype=float) > ELEMENTS:
            raise ConvsmithError(
                f"its input {slot.name!r} of {_by(shape)} is too large; give a smaller --input or batch"
            )
        feeds[slot.name] = _numbers(slot.dtype, generator.standard_normal(shape, np.float32))
    return feeds


def _require_fit(slot: Slot, wanted: Shape) -> None:
    sizes = slot.sizes or (None,) * len(wanted)
    if isinstance(sizes[0], int) and sizes[0] != wanted[0]:
        raise ConvsmithError(f"its batch is fixed at {sizes[0]}")
    if len(sizes) != len(wanted) or any(isinstance(a, int) and a != b for a, b in zip(sizes, wanted, strict=True)):
        raise ConvsmithError(f"its input {slot.name!r} is {_by(sizes[1:])}, not {_by(wanted[1:])}")


def _filled(slot: Slot, names: dict[str, int], batch: int) -> Shape:
    sizes = [names.get(size) if isinstance(size, str) else size for size in slot.sizes]
    sizes = [batch if size is None and place == 0 else size for place, size in enumerate(sizes)]
    if None in sizes:
        raise ConvsmithError(
            f"the size {_by(slot.sizes)} of its input {slot.name!r} is open; export it with fixed sizes"
        )
    return tuple(size for size in sizes if size is not None)


def _by(sizes: Sequence[Size]) -> str:
    return "x".join("?" if size is None else str(size) for size in sizes)


def _numbers(dtype: np.dtype[Any], values: NDArray[Any]) -> NDArray[Any]:
    """The values, or ones where they are whole numbers: sound indices, lengths and masks."""
    return np.ones(values.shape, dtype) if dtype.kind in "biu" else values.astype(dtype)
