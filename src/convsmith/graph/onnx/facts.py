"""What is known of a file's tensors before the net runs: shapes by ONNX's own inference, small constants by value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from onnx import (
    NodeProto,
    OperatorSetIdProto,
    TensorProto,
    TypeProto,
    helper,
    numpy_helper,
    shape_inference,
)  # fmt: skip
from onnx.checker import ValidationError
from onnx.defs import SchemaError, get_schema
from onnx.reference import ReferenceEvaluator

from convsmith.graph.call import Operand
from convsmith.graph.onnx.op import Array, Shape

SMALL = 1 << 16  # elements up to which a constant is computed: shapes, indices, scales, not weights
FOLD_ERRORS = (RuntimeError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError, NotImplementedError)
# Ops that sizes, indices and scales are made with. None of them needs more memory than what it reads and makes.
FOLDED = frozenset((
    "Abs", "Add", "And", "ArgMax", "ArgMin", "Cast", "CastLike", "Ceil", "Clip", "Concat", "Constant",
    "ConstantOfShape", "CumSum", "DequantizeLinear", "Div", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten",
    "Floor", "Gather", "GatherElements", "GatherND", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual",
    "Log", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "Not", "OneHot", "Or", "Pow", "QuantizeLinear", "Range",
    "Reciprocal", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu",
    "Reshape", "Round", "ScatterElements", "ScatterND", "Sigmoid", "Sign", "Slice", "Softmax", "Split", "Sqrt",
    "Squeeze", "Sub", "Sum", "Tanh", "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze", "Where", "Xor",
))  # fmt: skip
WIDEST = 16  # bytes of one number at most, those of two doubles
PACKED = 8  # numbers that one byte, or entry, of a stored tensor holds at most
SHRINKING = frozenset(("Compress", "NonZero", "Unique"))  # whose sizes follow from values, and stay below the input's
NARROW = frozenset(
    (
        TensorProto.INT4, TensorProto.UINT4, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16,
        TensorProto.INT32, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE,
    )
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Fact:
    """A tensor of the file: what the graph calls it, its type, its value if small and constant.

    `parts` names the stored tensors that one of the model's own is made of. `step` says that it is the scale or zero
    point of a quantizer, which the float net does not have.
    """

    operand: Operand
    type: TypeProto
    value: Array | None = None
    parts: tuple[str, ...] = ()
    step: bool = False

    @property
    def open(self) -> bool:
        """Whether its sizes are not known before the net runs."""
        return shape_of(self.type) is None


def shape_of(kind: TypeProto | None) -> Shape | None:
    """The sizes of a tensor's type, None where one is open; a list of tensors has none, and needs none."""
    if kind is not None and kind.HasField("sequence_type"):
        return ()
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    return tuple(dim.dim_value for dim in dims) if all(dim.HasField("dim_value") for dim in dims) else None


def stored(tensor: TensorProto, folder: Path) -> Fact:
    """One of the file's own tensors; its numbers are read where they may be sizes or indices."""
    shape = tuple(tensor.dims)
    if min(shape, default=1) < 0:
        raise ValueError("a size below 0")
    if tensor.data_location != TensorProto.EXTERNAL and prod(shape) > PACKED * _held(tensor):
        raise ValueError("fewer numbers than its sizes say")
    kind = helper.make_tensor_type_proto(tensor.data_type, shape)
    small = prod(shape) <= SMALL
    if (
        small
        and tensor.data_location == TensorProto.EXTERNAL
        and _beside(tensor, folder) > WIDEST * max(prod(shape), 1)
    ):
        raise ValueError("more numbers than its sizes say")
    value = numpy_helper.to_array(tensor, str(folder)) if small else None
    return Fact(Operand(tensor.name, shape, own=True), kind, value, (tensor.name,))


def _held(tensor: TensorProto) -> int:
    """Bytes, or numbers, that a tensor holds in the file."""
    fields = (tensor.raw_data, tensor.float_data, tensor.double_data, tensor.int32_data, tensor.int64_data,
              tensor.uint64_data, tensor.string_data)  # fmt: skip
    return sum(map(len, fields))


def _beside(tensor: TensorProto, folder: Path) -> int:
    """Bytes that would be read of the file beside this one: all from an offset on, where their number is not told."""
    told = {entry.key: entry.value for entry in tensor.external_data}
    if "length" in told:
        return int(told["length"])
    size: int = (folder / told["location"]).stat().st_size
    return size - int(told.get("offset", 0))


def constant(name: str, value: Array, parts: Sequence[str]) -> Fact:
    """A tensor that was computed from the file's own."""
    kind = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
    return Fact(Operand(name, value.shape, own=True), kind, value, tuple(parts))


def infer(node: NodeProto, facts: Mapping[str, Fact], opsets: Mapping[str, int]) -> dict[str, TypeProto]:
    """The types of a node's outputs, as far as ONNX tells them; `facts` holds all that the node reads.

    ONNX infers node by node where it can, and by a model of the one node where it cannot (ops with inner graphs).
    Raises onnx.shape_inference.InferenceError, or onnx.checker.ValidationError, where the inputs do not fit the op.
    """
    types = {name: fact.type for name, fact in facts.items()}
    try:
        told = _inferred(node, types, facts, opsets)
    except SchemaError:
        return {}
    except ValidationError:  # a float op on a quantized file's integers: its sizes are those of the float net
        told = _inferred(node, {name: _floating(kind) for name, kind in types.items()}, facts, opsets)
    open_ = any(shape_of(told.get(name)) is None for name in node.output if name)
    return told | _asked(node, types, facts, opsets) if open_ else told


def _inferred(
    node: NodeProto, types: dict[str, TypeProto], facts: Mapping[str, Fact], opsets: Mapping[str, int]
) -> dict[str, TypeProto]:
    schema = get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
    data = {name: numpy_helper.from_array(value) for name, value in _values(facts).items()}
    return shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=_imports(opsets))


def _asked(
    node: NodeProto, types: dict[str, TypeProto], facts: Mapping[str, Fact], opsets: Mapping[str, int]
) -> dict[str, TypeProto]:
    """What `infer_shapes` tells of a model of the one node."""
    given = [helper.make_value_info(name, kind) for name, kind in types.items()]
    made = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    values = [numpy_helper.from_array(value, name) for name, value in _values(facts).items()]
    graph = helper.make_graph([node], "node", given, made, values)
    try:
        whole = shape_inference.infer_shapes(helper.make_model(graph, opset_imports=_imports(opsets)), data_prop=True)
    except FOLD_ERRORS:
        return {}
    return {value.name: value.type for value in whole.graph.output if shape_of(value.type) is not None}


def _values(facts: Mapping[str, Fact]) -> dict[str, Array]:
    return {n: f.value for n, f in facts.items() if f.value is not None and f.value.size <= SMALL}


def _imports(opsets: Mapping[str, int]) -> list[OperatorSetIdProto]:
    return [helper.make_opsetid(domain, version) for domain, version in opsets.items()]


def _floating(kind: TypeProto) -> TypeProto:
    floating = TypeProto()
    floating.CopyFrom(kind)
    if kind.tensor_type.elem_type in NARROW:
        floating.tensor_type.elem_type = TensorProto.FLOAT
    return floating


def foldable(node: NodeProto, facts: Mapping[str, Fact], types: Mapping[str, TypeProto]) -> bool:
    """Whether a node can be computed here: of known values, and small by what its types tell."""
    if node.domain not in ("", "ai.onnx") or any(fact.value is None for fact in facts.values()):
        return False
    shapes = [shape_of(types.get(name)) for name in node.output if name]
    small = all(shape is not None and 0 <= prod(shape) <= SMALL for shape in shapes)
    return (small and node.op_type in FOLDED) or node.op_type in SHRINKING


def shape_only(node: NodeProto, facts: Mapping[str, Fact]) -> bool:
    """Whether a node asks for sizes alone, which are known before the net runs."""
    return node.op_type in ("Shape", "Size") and not node.domain and not any(fact.open for fact in facts.values())


def fold(node: NodeProto, facts: Mapping[str, Fact], opsets: Mapping[str, int]) -> list[Array] | None:
    """A small constant node's outputs, None where there is no reference for it; the shape of any tensor is constant."""
    shapely = shape_only(node, facts)
    feeds = {name: np.broadcast_to(False, f.operand.shape) if shapely else f.value for name, f in facts.items()}
    blanks = [helper.make_empty_tensor_value_info(name) for name in feeds]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    try:
        run = ReferenceEvaluator(helper.make_graph([node], "constant", blanks, outputs), opsets=dict(opsets))
        results = run.run(None, feeds)
    except FOLD_ERRORS:  # no reference for this op: its shape may still be told
        return None
    arrays = [np.asarray(result) for result in results]
    return arrays if all(array.size <= SMALL and array.dtype != object for array in arrays) else None
