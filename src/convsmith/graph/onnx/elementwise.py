"""Translations of ops that work element by element: activations, normalization, sums and products."""

from functools import partial

from convsmith.graph.call import Operand
from convsmith.graph.onnx.op import TRANSLATIONS, Declined, Emit, Misfit, Op, translates

_UNARY = {
    "Relu": "relu", "LeakyRelu": "leaky_relu", "Elu": "elu", "Celu": "celu", "Selu": "selu", "Gelu": "gelu",
    "Swish": "silu", "Mish": "mish", "Sigmoid": "sigmoid", "Tanh": "tanh", "HardSwish": "hardswish",
    "HardSigmoid": "hardsigmoid", "Softplus": "softplus", "Clip": "clamp", "Abs": "abs", "Neg": "neg", "Exp": "exp",
    "Log": "log", "Sqrt": "sqrt", "Reciprocal": "reciprocal", "Erf": "erf", "Sign": "sign", "Floor": "floor",
    "Ceil": "ceil", "Round": "round", "Sin": "sin", "Cos": "cos", "ThresholdedRelu": "threshold", "Not": "logical_not",
}  # fmt: skip
_BINARY = {
    "Add": "add.Tensor", "Sub": "sub.Tensor", "Mul": "mul.Tensor", "Div": "div.Tensor", "Mod": "remainder.Tensor",
    "Greater": "gt.Tensor", "GreaterOrEqual": "ge.Tensor", "Less": "lt.Tensor", "LessOrEqual": "le.Tensor",
    "Equal": "eq.Tensor", "And": "logical_and.default", "Or": "logical_or.default", "Xor": "logical_xor.default",
}  # fmt: skip


def _unary(aten: str, op: Op, emit: Emit) -> Operand:
    return emit(f"aten.{aten}.default", op.out, self=op[0])


def _binary(aten: str, op: Op, emit: Emit) -> Operand:
    if op.type in ("Mul", "Div") and op[1].name in op.steps:
        return op[0]  # back from a quantizer's steps
    return emit(f"aten.{aten}", op.out, self=op[0], other=op[1])


for _name, _aten in _UNARY.items():
    TRANSLATIONS.add(_name, partial(_unary, _aten))
for _name, _aten in _BINARY.items():
    TRANSLATIONS.add(_name, partial(_binary, _aten))


@translates("Identity", "Dropout", "Cast", "CastLike")
def same(op: Op, emit: Emit) -> Operand:
    """No call at all: the tensor is what it was, in evaluation."""
    return op[0]


@translates("Pow")
def power(op: Op, emit: Emit) -> Operand:
    """An exponent is a tensor in ONNX, mostly of one constant number."""
    exponent = op.values.get(op[1].name)
    if exponent is None or exponent.size != 1:
        return emit("aten.pow.Tensor_Tensor", op.out, self=op[0], exponent=op[1])
    return emit("aten.pow.Tensor_Scalar", op.out, self=op[0], exponent=exponent.item())


@translates("Where")
def where(op: Op, emit: Emit) -> Operand:
    """Either of two tensors."""
    return emit("aten.where.self", op.out, condition=op[0], self=op[1], other=op[2])


@translates("PRelu")
def prelu(op: Op, emit: Emit) -> Operand:
    """A slope per channel."""
    return emit("aten.prelu.default", op.out, self=op[0], weight=op[1])


@translates("Sum", "Mean", "Max", "Min")
def join(op: Op, emit: Emit) -> Operand:
    """Any number of tensors, two by two."""
    aten = {"Max": "maximum.default", "Min": "minimum.default"}.get(op.type, "add.Tensor")
    total, *others = [op[place] for place in range(len(op.inputs))]
    for other in others:
        total = emit(f"aten.{aten}", op.out, self=total, other=other)
    return total


@translates("BatchNormalization")
def batch_norm(op: Op, emit: Emit) -> Operand:
    """In evaluation; a file that normalizes by the batch mixes everything."""
    if op.attributes.get("training_mode", 0):
        raise Declined
    args = {name: op[place] for place, name in enumerate(("weight", "bias", "running_mean", "running_var"), 1)}
    channels = op[0].shape[1]
    if any(operand.shape != (channels,) for operand in args.values()):
        raise Misfit(f"{channels} channels, and statistics of {args['weight'].shape}")
    return emit("aten.batch_norm.default", op.out, input=op[0], **args)


@translates("LayerNormalization")
def layer_norm(op: Op, emit: Emit) -> Operand:
    """Over the last dimensions, from `axis` on."""
    x = op[0]
    (first,) = op.dims([op.attributes.get("axis", -1)])
    normalized = list(x.shape[first:])
    return emit("aten.layer_norm.default", x.shape, input=x, normalized_shape=normalized, weight=op[1], bias=op.get(2))


@translates("InstanceNormalization")
def instance_norm(op: Op, emit: Emit) -> Operand:
    """Each channel over its map."""
    args = {"weight": op[1], "bias": op[2], "use_input_stats": True}
    return emit("aten.instance_norm.default", op.out, input=op[0], **args)


@translates("GroupNormalization", shape=lambda op: op[0].shape)
def group_norm(op: Op, emit: Emit) -> Operand:
    """Each group of channels over its map."""
    groups = op.attributes["num_groups"]
    return emit("aten.group_norm.default", op[0].shape, input=op[0], num_groups=groups, weight=op[1], bias=op[2])


@translates("Softmax", "LogSoftmax")
def softmax(op: Op, emit: Emit) -> Operand:
    """Over one dimension; before opset 13 over all from `axis` on."""
    x = op[0]
    (dim,) = op.dims([op.attributes.get("axis", -1 if op.opset >= 13 else 1)])
    if op.opset < 13 and x.shape[dim + 1 :].count(1) != len(x.shape) - dim - 1:
        raise Declined
    return emit("aten.softmax.int" if op.type == "Softmax" else "aten.log_softmax.int", op.out, self=x, dim=dim)
