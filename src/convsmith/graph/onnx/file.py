"""An ONNX file: read, with its inputs' shapes settled."""

from collections.abc import Mapping, Sequence
from copy import copy
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import ModelProto, NodeProto, TypeProto, ValueInfoProto, helper, inliner

from convsmith.bounds import check_input
from convsmith.errors import CaptureError, FileError
from convsmith.graph.onnx.calls import reads
from convsmith.graph.onnx.functions import check_size
from convsmith.graph.onnx.op import Shape
from convsmith.text import times

Given = Shape | Mapping[str, Shape] | None

TO_FIRST = [0, 3, 1, 2]  # (batch, height, width, channels) to (batch, channels, height, width)


def read(path: Path) -> ModelProto:
    """A file's model, its functions inlined, weights beside the file left where they are."""
    if not path.is_file():
        raise FileError(f"{path}: no such file; check the path.")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise FileError(f"{path}: is not an ONNX file; write one with torch.onnx.export.") from error
    if _spoiled(model):
        raise FileError(f"{path}: holds a name that is no text; write the file anew.")
    if not model.graph.node or not model.opset_import:
        raise FileError(f"{path}: holds no ONNX graph; write one with torch.onnx.export.")
    check_size(model, path)
    try:
        model = inliner.inline_local_functions(model) if model.functions else model
    except (RuntimeError, ValueError) as error:
        raise FileError(f"{path}: its functions cannot be read; write the file anew.") from error
    _put_in_order(model, path)
    for value in model.graph.input:
        _channels_first(model, value)
        _batch_first(model, value)
    return model


def _spoiled(message: Message) -> bool:
    """Whether a text anywhere in a message is not of Unicode: it is then read as bytes, which no name is equal to."""
    for field, value in message.ListFields():
        parts = [value] if isinstance(value, str | bytes | Message) else value
        if field.type == FieldDescriptor.TYPE_MESSAGE and any(map(_spoiled, parts)):
            return True
        if field.type == FieldDescriptor.TYPE_STRING and bytes in map(type, parts):
            return True
    return False


def _put_in_order(model: ModelProto, path: Path) -> None:
    """Nodes behind those that they read, where a converter has put new ones at the end of the file."""
    nodes, made = list(model.graph.node), set[str]()
    makers = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    for node in nodes:
        if any(name in makers and name not in made for name in reads(node)):
            break
        made.update(node.output)
    else:
        return
    before = {place: [makers[x] for x in reads(node) if x in makers] for place, node in enumerate(nodes)}
    try:
        order = [nodes[place] for place in TopologicalSorter(before).static_order()]
    except CycleError as error:
        raise FileError(f"{path}: its nodes read each other in a circle; write the file anew.") from error
    del model.graph.node[:]
    model.graph.node.extend(order)


def _channels_first(model: ModelProto, value: ValueInfoProto) -> None:
    """Lay out an input as (channels, height, width) where channels are last, as TensorFlow has them, and turned round.

    That is where all that read it transpose it so; these then have nothing to do.
    """
    readers = [node for node in model.graph.node if value.name in node.input]
    turned = all(n.op_type == "Transpose" and [list(a.ints) for a in n.attribute] == [TO_FIRST] for n in readers)
    if readers and turned and len(value.type.tensor_type.shape.dim) == len(TO_FIRST):
        dims = [copy(value.type.tensor_type.shape.dim[place]) for place in TO_FIRST]
        del value.type.tensor_type.shape.dim[:]
        value.type.tensor_type.shape.dim.extend(dims)
        for node in readers:
            node.CopyFrom(helper.make_node("Identity", node.input, node.output, name=node.name))


def _batch_first(model: ModelProto, value: ValueInfoProto) -> None:
    """Lay out an input as (batch, steps, features) where a recurrent layer reads it with the steps first."""
    dims = value.type.tensor_type.shape.dim
    readers = [node for node in model.graph.node if value.name in node.input]
    if len(dims) != 3 or not any(_steps_first(node, value.name) for node in readers):
        return
    swapped = [copy(dims[place]) for place in (1, 0, 2)]
    del dims[:]
    dims.extend(swapped)
    turned = f"{value.name}#steps first"
    for node in readers:
        node.input[:] = [turned if name == value.name else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Transpose", [value.name], [turned], perm=[1, 0, 2]))


def _steps_first(node: NodeProto, name: str) -> bool:
    recurrent = node.op_type in ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM") and node.input[0] == name
    return recurrent and not any(attribute.name == "layout" and attribute.i for attribute in node.attribute)


def inputs_of(model: ModelProto, given: Given, path: Path, batch: int = 1) -> dict[str, TypeProto]:
    """The types of the net's inputs, the first one's batch as wanted.

    given: (channels, *map) for the first input, or shapes by the names of inputs, where sizes are open. Others keep the
    file's own sizes; what shares the first one's batch, by its symbol or its fixed number, has that of the first.
    Raises ConvsmithError where a size stays open, is another than the file's, or is larger than any net's.
    """
    first, *others = _inputs(model, path)
    shapes = given if isinstance(given, Mapping) else {} if given is None else {first.name: given}
    if strange := sorted(shapes.keys() - {first.name, *(value.name for value in others)}):
        names = ", ".join(value.name for value in (first, *others))
        raise CaptureError(f"{path}: has no input {strange[0]!r}; its inputs are {names}.")
    dims, wanted = _dims(first), shapes.get(first.name)
    own = [None] * (1 + len(wanted or ())) if dims is None else [None, *dims[1:]]
    if len(own) < 2 and dims is not None:
        raise CaptureError(f"{path}: its input {first.name!r} has no channels; give a net of (batch, channels, ..).")
    sizes = {first.name: (batch, *settled(first.name, own, wanted, path)[1:])}
    symbols = _symbols(first, sizes[first.name])
    for value in others:
        sizes[value.name] = _sized(value, shapes.get(value.name), symbols, fixed_batch(model), batch, path)
        symbols = _symbols(value, sizes[value.name]) | symbols
    for name, shape in sizes.items():
        check_input(shape[1:], f"{path}: its input {name!r}")
    kinds = {value.name: value.type.tensor_type.elem_type for value in (first, *others)}
    return {name: helper.make_tensor_type_proto(kinds[name], shape) for name, shape in sizes.items()}


def _inputs(model: ModelProto, path: Path) -> list[ValueInfoProto]:
    stored = {tensor.name for tensor in model.graph.initializer}  # old files list these as inputs too
    inputs = [value for value in model.graph.input if value.name not in stored]
    strange = next((value.name for value in inputs if not value.type.HasField("tensor_type")), None)
    if not inputs or strange is not None:
        what = "has no input" if strange is None else f"its input {strange!r} is no tensor"
        raise CaptureError(f"{path}: {what}; give the file of a net that takes tensors.")
    return inputs


def fixed_batch(model: ModelProto) -> int:
    """The number that the first input's batch is fixed at, 1 where it is open."""
    stored = {tensor.name for tensor in model.graph.initializer}
    own = next((_dims(value) for value in model.graph.input if value.name not in stored), None)
    return (own and own[0]) or 1


def _dims(value: ValueInfoProto) -> list[int | None] | None:
    """An input's own sizes, None where they are open; None where even their number is."""
    kind = value.type.tensor_type
    sizes = [dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim]
    return sizes if kind.HasField("shape") else None


def _symbols(value: ValueInfoProto, sizes: Shape) -> dict[str, int]:
    dims = zip(value.type.tensor_type.shape.dim, sizes, strict=False)
    return {dim.dim_param: size for dim, size in dims if dim.dim_param}


def _sized(
    value: ValueInfoProto, given: Shape | None, symbols: Mapping[str, int], fixed: int, batch: int, path: Path
) -> Shape:
    """The sizes of an input beside the first: a state, a mask, a second image."""
    own = _dims(value) or []
    known = [symbols.get(dim.dim_param, size) for dim, size in zip(value.type.tensor_type.shape.dim, own, strict=False)]
    sizes = [batch if fixed > 1 and size == fixed else size for size in known]
    if sizes and sizes[0] is None:
        sizes[0] = batch
    if given is not None:
        whole = (*([] if len(given) == len(sizes) else [sizes[0] or batch] if sizes else []), *given)
        if sizes and not _fits(whole, sizes):
            raise CaptureError(f"{path}: its input {value.name!r} is {times(sizes)}, but {times(whole)} is given.")
        return whole
    if None in sizes:
        raise CaptureError(
            f"{path}: the size {times(sizes)} of its input {value.name!r} is open; export it with fixed sizes, "
            f"or give its shape by name."
        )
    return tuple(size for size in sizes if size is not None)


def _fits(given: Shape, sizes: Sequence[int | None]) -> bool:
    return len(given) == len(sizes) and all(a is None or a == b for a, b in zip(sizes, given, strict=True))


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
        if value.name not in types or kind.tensor_type.HasField("shape"):
            types[value.name] = kind
    return types


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
