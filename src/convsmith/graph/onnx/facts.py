"""What is known of a file's tensors before the net runs: shapes by ONNX's own inference, small constants by value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from onnx import NodeProto, TensorProto, TypeProto, helper, numpy_helper, shape_inference
from onnx.defs import SchemaError, get_schema
from onnx.reference import ReferenceEvaluator

from convsmith.graph.call import Operand
from convsmith.graph.onnx.op import Array, Shape

SMALL = 1 << 16  # elements up to which a constant is computed: shapes, indices, scales, not weights
LIKE_INPUT = ("GroupNormalization",)  # of the first input's shape, which ONNX's inference does not tell
FOLD_ERRORS = (RuntimeError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError)


@dataclass(frozen=True, eq=False)
class Fact:
    """A tensor of the file: what the graph calls it, its type, its value if small and constant.

    `parts` names the stored tensors that one of the model's own is made of.
    """

    operand: Operand
    type: TypeProto
    value: Array | None = None
    parts: tuple[str, ...] = ()


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
    kind = helper.make_tensor_type_proto(tensor.data_type, shape)
    value = numpy_helper.to_array(tensor, str(folder)) if prod(shape) <= SMALL else None
    return Fact(Operand(tensor.name, shape, own=True), kind, value, (tensor.name,))


def constant(name: str, value: Array, parts: Sequence[str]) -> Fact:
    """A tensor that was computed from the file's own."""
    kind = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
    return Fact(Operand(name, value.shape, own=True), kind, value, tuple(parts))


def infer(node: NodeProto, facts: Mapping[str, Fact], opsets: Mapping[str, int]) -> dict[str, TypeProto]:
    """The types of a node's outputs, as far as ONNX tells them; `facts` holds all that the node reads.

    Raises onnx.shape_inference.InferenceError where the inputs do not fit the op.
    """
    if node.op_type in LIKE_INPUT:
        return {node.output[0]: facts[node.input[0]].type}
    try:
        schema = get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
    except SchemaError:
        return {}
    types = {name: fact.type for name, fact in facts.items()}
    values = {name: fact.value for name, fact in facts.items() if fact.value is not None and fact.value.size <= SMALL}
    data = {name: numpy_helper.from_array(value) for name, value in values.items()}
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=imports)


def fold(node: NodeProto, facts: Mapping[str, Fact], opsets: Mapping[str, int]) -> list[Array] | None:
    """A node's outputs where it is small and constant; the shape of any tensor is."""
    shapely = node.op_type in ("Shape", "Size") and not node.domain
    feeds = {name: np.broadcast_to(False, f.operand.shape) if shapely else f.value for name, f in facts.items()}
    if any(value is None for value in feeds.values()):
        return None
    blanks = [helper.make_empty_tensor_value_info(name) for name in feeds]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    try:
        run = ReferenceEvaluator(helper.make_graph([node], "constant", blanks, outputs), opsets=dict(opsets))
        results = run.run(None, feeds)
    except FOLD_ERRORS:  # no reference for this op: its shape may still be told
        return None
    arrays = [np.asarray(result) for result in results]
    return arrays if all(array.size <= SMALL and array.dtype != object for array in arrays) else None
