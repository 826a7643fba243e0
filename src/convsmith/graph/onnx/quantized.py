"""Quantized files as the float nets they stand for: each quantized op as the float ops that it approximates."""

from collections.abc import Callable, Sequence
from functools import partial

from onnx import NodeProto, helper
from onnx.defs import get_schema

from convsmith.graph.call import Operand
from convsmith.graph.onnx.elementwise import same
from convsmith.graph.onnx.op import Declined, Emit, Misfit, Op, Shape, name_of, translates
from convsmith.registry import Registry

Lowering = Callable[[NodeProto], list[NodeProto]]

# Ops that are others on quantized numbers, with where their tensors stand among scales and zero points.
FLOAT_NETS: Registry[Lowering] = Registry("quantized ONNX op")
_PLACES: dict[str, tuple[str, tuple[int, ...]]] = {
    "QLinearConv": ("Conv", (0, 3, 8)), "ConvInteger": ("Conv", (0, 1)),
    "QLinearMatMul": ("MatMul", (0, 3)), "MatMulInteger": ("MatMul", (0, 1)),
    "com.microsoft.QGemm": ("Gemm", (0, 3, 6)),
    "com.microsoft.QLinearAdd": ("Add", (0, 3)), "com.microsoft.QLinearMul": ("Mul", (0, 3)),
    "com.microsoft.QLinearWhere": ("Where", (0, 1, 4)),
    **{f"com.microsoft.QLinear{op}": (op, (0,)) for op in
       ("AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax", "ReduceMean")},
}  # fmt: skip


def lowered(node: NodeProto) -> list[NodeProto]:
    """The float nodes that a quantized one stands for; any other is itself."""
    name = name_of(node)
    return FLOAT_NETS[name](node) if name in FLOAT_NETS and not _channels_last(node) else [node]


def _channels_last(node: NodeProto) -> bool:
    return any(a.name == "channels_last" and a.i for a in node.attribute)


def _given(node: NodeProto, places: Sequence[int]) -> list[str]:
    names = [node.input[place] if place < len(node.input) else "" for place in places]
    while names and not names[-1]:
        names.pop()
    return names


def _node(like: NodeProto, type: str, inputs: Sequence[str], outputs: Sequence[str]) -> NodeProto:
    """A node of ONNX's own in another's place, with those of its attributes that it has too."""
    made = helper.make_node(type, inputs, outputs, name=like.name)
    takes = get_schema(type).attributes
    made.attribute.extend(attribute for attribute in like.attribute if attribute.name in takes)
    made.metadata_props.extend(like.metadata_props)
    return made


def _as(type: str, places: tuple[int, ...], node: NodeProto) -> list[NodeProto]:
    return [_node(node, type, _given(node, places), node.output[:1])]


for _name, (_type, _where) in _PLACES.items():
    FLOAT_NETS.add(_name, partial(_as, _type, _where))


@FLOAT_NETS.register("com.microsoft.QLinearConcat")
def _concat(node: NodeProto) -> list[NodeProto]:
    """Behind the output's scale and zero point stand tensors, each with its own."""
    return [_node(node, "Concat", node.input[2::3], node.output[:1])]


def _with_bias(bias: int, node: NodeProto) -> list[NodeProto]:
    if not _given(node, (bias,)):
        return _as("MatMul", (0, 1), node)
    product = f"{node.output[0]}#product"
    return [
        _node(node, "MatMul", _given(node, (0, 1)), [product]),
        _node(node, "Add", [product, node.input[bias]], node.output[:1]),
    ]


FLOAT_NETS.add("com.microsoft.DynamicQuantizeMatMul", partial(_with_bias, 4))
FLOAT_NETS.add("com.microsoft.MatMulIntegerToFloat", partial(_with_bias, 6))


@FLOAT_NETS.register("com.microsoft.DynamicQuantizeLSTM")
def _lstm(node: NodeProto) -> list[NodeProto]:
    """Its weights are kept as (directions, inputs, gates)."""
    turned = [f"{name}#turned" for name in node.input[1:3]]
    turns = [
        helper.make_node("Transpose", [a], [b], perm=[0, 2, 1]) for a, b in zip(node.input[1:3], turned, strict=True)
    ]
    rest = _given(node, range(3, 8))
    return [*turns, _node(node, "LSTM", [node.input[0], *turned, *rest], node.output)]


def _like_first(op: Op) -> Shape:
    return op[0].shape


translates(
    "QuantizeLinear", "DequantizeLinear", "com.microsoft.QuantizeLinear", "com.microsoft.DequantizeLinear",
    shape=_like_first,
)(same)  # fmt: skip


@translates("DynamicQuantizeLinear", shape=lambda op: [op[0].shape, (), ()])
def dynamic_quantize(op: Op, emit: Emit) -> list[Operand]:
    """The tensor itself; its scale and zero point are no part of the float net, and see nothing."""
    steps = [Operand(f"{op[0].name}#{part}", (), own=True) for part in ("scale", "zero")]
    return [op[0], *steps]


def _packed(op: Op) -> tuple[int, int]:
    """Outputs and inputs of a matrix whose numbers are packed into bytes."""
    return op.attributes["N"], op.attributes["K"]


@translates(
    "com.microsoft.MatMulNBits", "com.microsoft.MatMulBnb4", shape=lambda op: (*op[0].shape[:-1], _packed(op)[0])
)
def packed_product(op: Op, emit: Emit) -> Operand:
    """A linear layer."""
    x, weight = op[0], op[1]
    if not weight.own:
        raise Declined
    if x.shape[-1] != _packed(op)[1]:
        raise Misfit(f"{x.shape[-1]} features into a weight for {_packed(op)[1]}")
    bias = op.get(5) if op.type == "MatMulNBits" else None
    return emit("aten.linear.default", op.out, input=x, weight=Operand(weight.name, _packed(op), own=True), bias=bias)
