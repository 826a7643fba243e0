"""An ONNX file: read, with its inputs' shapes settled."""

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TypeProto, ValueInfoProto, helper, inliner

from convsmith.errors import CaptureError, FileError
from convsmith.graph.onnx.op import Shape
from convsmith.text import times

TO_FIRST = [0, 3, 1, 2]  # (batch, height, width, channels) to (batch, channels, height, width)


def read(path: Path) -> ModelProto:
    """A file's model, its functions inlined, weights beside the file left where they are."""
    if not path.is_file():
        raise FileError(f"{path}: no such file; check the path.")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError) as error:
        raise FileError(f"{path}: is not an ONNX file; write one with torch.onnx.export.") from error
    if not model.graph.node or not model.opset_import:
        raise FileError(f"{path}: holds no ONNX graph; write one with torch.onnx.export.")
    model = inliner.inline_local_functions(model) if model.functions else model
    for value in model.graph.input:
        _channels_first(model, value)
    return model


def _channels_first(model: ModelProto, value: ValueInfoProto) -> None:
    """Lay out an input as (channels, height, width) where channels are last, as TensorFlow has them, and turned round.

    That is where all that read it transpose it so; these then have nothing to do.
    """
    readers = [node for node in model.graph.node if value.name in node.input]
    if readers and all(n.op_type == "Transpose" and list(n.attribute[0].ints) == TO_FIRST for n in readers):
        dims = [copy(value.type.tensor_type.shape.dim[place]) for place in TO_FIRST]
        del value.type.tensor_type.shape.dim[:]
        value.type.tensor_type.shape.dim.extend(dims)
        for node in readers:
            node.CopyFrom(helper.make_node("Identity", node.input, node.output, name=node.name))


def inputs_of(model: ModelProto, given: Shape | None, path: Path) -> dict[str, TypeProto]:
    """The types of the net's inputs at batch 1; `given` (channels, *map) fills the open sizes of a single one."""
    stored = {tensor.name for tensor in model.graph.initializer}  # old files list these as inputs too
    inputs = [value for value in model.graph.input if value.name not in stored]
    if given is not None and len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise CaptureError(
            f"{path}: has {len(inputs)} inputs ({names}), but --input is the shape of one; export it with fixed sizes."
        )
    return {value.name: _typed(value, given, path) for value in inputs}


def bindings(model: ModelProto, inputs: Mapping[str, TypeProto]) -> dict[str, int]:
    """What the symbols in the inputs' shapes stand for."""
    bound: dict[str, int] = {}
    for value in model.graph.input:
        if value.name in inputs:
            dims = zip(value.type.tensor_type.shape.dim, inputs[value.name].tensor_type.shape.dim, strict=False)
            bound |= {old.dim_param: new.dim_value for old, new in dims if old.dim_param}
    return bound


def declared(model: ModelProto, bound: Mapping[str, int]) -> dict[str, TypeProto]:
    """The types that the file itself gives for what its nodes make, for ops that ONNX cannot infer."""
    types = {}
    for value in [*model.graph.value_info, *model.graph.output]:
        kind = TypeProto()
        kind.CopyFrom(value.type)
        for dim in kind.tensor_type.shape.dim if kind.HasField("tensor_type") else ():
            if dim.dim_param in bound:
                dim.dim_value = bound[dim.dim_param]
        types[value.name] = kind
    return types


def _typed(value: ValueInfoProto, given: Shape | None, path: Path) -> TypeProto:
    kind = value.type.tensor_type
    own = [dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim]
    if not kind.HasField("shape"):
        own = [None] * (len(given or ()) + 1)
    return helper.make_tensor_type_proto(kind.elem_type, settled(value.name, own, given, path))


def settled(name: str, own: Sequence[int | None], given: Shape | None, path: Path) -> Shape:
    """An input's shape at batch 1: the file's own sizes, and the given ones where it leaves them open (None).

    Raises ConvsmithError where a size stays open or is another, and where the batch is fixed at another number.

    >>> settled("x", (None, 3, None, None), (3, 32, 32), Path("net.onnx"))
    (1, 3, 32, 32)
    """
    batch, *sizes = own or (None,)
    told = times(sizes)
    wanted = sizes if given is None else given
    if batch not in (None, 1):
        raise CaptureError(f"{path}: its batch is fixed at {batch}; export it with batch 1, or an open one.")
    if None in wanted:
        raise CaptureError(f"{path}: the size {told} of its input {name!r} is open; give --input C,H,W.")
    if len(wanted) != len(sizes) or any(a is not None and a != b for a, b in zip(sizes, wanted, strict=True)):
        raise CaptureError(f"{path}: its input {name!r} is {told}, but --input is {times(wanted)}; leave it out.")
    return (1, *(size for size in wanted if size is not None)) if own else ()
