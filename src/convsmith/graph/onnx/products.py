"""Translations of ops that multiply: convolutions, linear layers, matrix products, attention."""

from convsmith.graph.call import Operand
from convsmith.graph.onnx.op import Declined, Emit, Misfit, Op, Shape, translates
from convsmith.graph.onnx.pools import padded, padding


def _require_fit(op: Op, inputs: int, outputs: int) -> None:
    """That a convolution's weight takes the channels there are, and its kernel stays on the map."""
    x, weight, groups = op[0], op[1], op.attributes.get("group", 1)
    kernel = tuple(op.attributes.get("kernel_shape", weight.shape[2:]))
    bias = op.get(2)
    if len(x.shape) != len(weight.shape):
        raise Misfit(f"a weight of {len(weight.shape)} dimensions over a tensor of {len(x.shape)}")
    if groups < 1 or inputs != x.shape[1] or outputs % groups or x.shape[1] % groups:
        split = f"{groups} group{'s' * (groups != 1)}"
        raise Misfit(f"{x.shape[1]} channels into a weight of {_by(weight.shape)} in {split}")
    if kernel != weight.shape[2:]:
        raise Misfit(f"a kernel of {_by(kernel)}, but a weight of {_by(weight.shape)}")
    if bias is not None and bias.shape != (outputs,):
        raise Misfit(f"a bias of {_by(bias.shape)} for {outputs} channels")
    if min(op.out) < 1 or len(op.out) != len(x.shape):
        raise Misfit(f"a kernel of {_by(kernel)} on a map of {_by(x.shape[2:])} leaves nothing")
    if min((*op.attributes.get("strides", ()), *op.attributes.get("dilations", ()), 1)) < 1:
        raise Misfit("strides and dilations are at least 1")


def _by(sizes: Shape) -> str:
    return "x".join(map(str, sizes)) or "one number"


@translates("Conv")
def convolution(op: Op, emit: Emit) -> Operand:
    """Over one to three axes; uneven padding is torch's `same`, or goes before it."""
    weight = op[1]
    kernel = weight.shape[2:]
    n = len(kernel)
    if not 1 <= n <= 3:
        raise Declined
    _require_fit(op, weight.shape[1] * op.attributes.get("group", 1), weight.shape[0])
    stride, dilation = (list(op.attributes.get(name, [1] * n)) for name in ("strides", "dilations"))
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    args = {"weight": weight, "bias": op.get(2), "stride": stride, "dilation": dilation}
    args["groups"] = op.attributes.get("group", 1)
    pads = padding(op, spans, stride)
    same = [((span - 1) // 2, span // 2) for span in spans]
    if pads == same and any(span % 2 == 0 for span in spans) and max(stride) == 1:
        return emit(f"aten.conv{n}d.padding", op.out, input=op[0], padding="same", **args)
    x, even = padded(pads, op, emit)
    return emit(f"aten.conv{n}d.default", op.out, input=x, padding=even, **args)


@translates("ConvTranspose")
def transposed_convolution(op: Op, emit: Emit) -> Operand:
    """Over one to three axes, cropped evenly."""
    weight = op[1]
    n = len(weight.shape) - 2
    _require_fit(op, weight.shape[0], weight.shape[1] * op.attributes.get("group", 1))
    stride, dilation = (list(op.attributes.get(name, [1] * n)) for name in ("strides", "dilations"))
    extra = list(op.attributes.get("output_padding", [0] * n))
    if not 1 <= n <= 3 or "output_shape" in op.attributes or op.attributes.get("auto_pad", "NOTSET") != "NOTSET":
        raise Declined
    if any(more >= max(step, wide) for more, step, wide in zip(extra, stride, dilation, strict=True) if more):
        raise Misfit(f"output_padding of {extra} is no less than its strides of {stride}")
    pads = padding(op, weight.shape[2:], stride)
    if any(before != after for before, after in pads):
        raise Declined
    return emit(
        "aten.conv_transpose1d.default" if n == 1 else f"aten.conv_transpose{n}d.input",
        op.out, input=op[0], weight=weight, bias=op.get(2), stride=stride, padding=[before for before, _ in pads],
        output_padding=extra, groups=op.attributes.get("group", 1), dilation=dilation,
    )  # fmt: skip


@translates("Gemm")
def general_product(op: Op, emit: Emit) -> Operand:
    """A linear layer where the second matrix is the model's own."""
    x, matrix, bias = op[0], op[1], op.get(2)
    if op.attributes.get("transA", 0) or (bias is not None and not bias.own) or x.own or not matrix.own:
        raise Declined
    weight = matrix if op.attributes.get("transB", 0) else _transposed(matrix)
    return emit("aten.linear.default", op.out, input=x, weight=weight, bias=bias)


@translates("MatMul")
def product(op: Op, emit: Emit) -> Operand:
    """A linear layer where the second factor is a matrix of the model's own, else a product of two tensors."""
    left, right = op[0], op[1]
    if right.own and len(right.shape) == 2:
        return emit("aten.linear.default", op.out, input=left, weight=_transposed(right), bias=None)
    return emit("aten.matmul.default", op.out, self=left, other=right)


def _transposed(matrix: Operand) -> Operand:
    """ONNX keeps (in, out), torch (out, in)."""
    return Operand(matrix.name, matrix.shape[::-1], own=True)


@translates("Einsum")
def einsum(op: Op, emit: Emit) -> Operand:
    """A sum of products by its equation."""
    tensors = [op[place] for place in range(len(op.inputs))]
    return emit("aten.einsum.default", op.out, equation=op.attributes["equation"], tensors=tensors)


@translates("Attention")
def attention(op: Op, emit: Emit) -> Operand:
    """Scaled dot products of (batch, heads, places, width) tensors, without a cache."""
    if len(op.outs) > 1 or any(len(op[place].shape) != 4 for place in range(3)) or op.get(4) or op.get(5):
        raise Declined
    query, key, value = op[0], op[1], op[2]
    return emit("aten.scaled_dot_product_attention.default", op.out, query=query, key=key, value=value)
