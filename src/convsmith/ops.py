"""What each ATen op does to reach and what it costs: one rule per op, and nothing else asks what an op is.

Reaches leave the batch dimension out, so dimension d of a tensor is dimension d - 1 here. ATen's names and arguments
are those of `torch.export` before decomposition.
"""

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from convsmith.blocks.rpw import windows as rolling_windows
from convsmith.call import Answer, Call, Operand, Seen, in_numel, joining, out_numel, unary
from convsmith.reach import Reach
from convsmith.windows import Taps


def _tuple(value: Any, dims: int, empty: Sequence[int] = ()) -> tuple[int, ...]:
    """ATen's lists of one number mean that number for every dimension; an empty list means `empty`."""
    values = [value] if isinstance(value, int) else list(value)
    return tuple(empty) if not values else tuple(values * dims if len(values) == 1 else values)


# --- convolutions and products -----------------------------------------------------------------------------------------


def _conv_macs(call: Call) -> int:
    return prod(call.out) * prod(call["weight"].shape[1:])


def _conv_ptflops(call: Call) -> int:
    return _conv_macs(call) + (prod(call.out) if call["bias"] is not None else 0)


def conv_padding(call: Call) -> tuple[int, ...]:
    """Zeros before the map, per axis, with `same` and `valid` resolved."""
    kernel, padding = call["weight"].shape[2:], call["padding"]
    if padding == "same":
        return tuple(d * (k - 1) // 2 for k, d in zip(kernel, _tuple(call["dilation"], len(kernel)), strict=True))
    return (0,) * len(kernel) if padding == "valid" else _tuple(padding, len(kernel))


@unary(
    *(f"aten.conv{n}d.{form}" for n in (1, 2, 3) for form in ("default", "padding")),
    macs=_conv_macs, ptflops=_conv_ptflops, kind="conv",
)  # fmt: skip
def convolution(call: Call, x: Reach) -> Reach:
    """Every output channel sees its group; every position what the kernel covers."""
    kernel, groups = call["weight"].shape[2:], call["groups"]
    n = len(kernel)
    steps = zip(
        kernel, _tuple(call["stride"], n), conv_padding(call), _tuple(call["dilation"], n), call.out[2:], strict=True
    )
    for dim, (size, stride, padding, dilation, outputs) in enumerate(steps, 1):
        x = x.select(dim, Taps.slide(x.shape[dim], size, stride, padding, dilation, outputs))
    x = x.as_units(0)
    return x.select(0, Taps.groups(x.shape[0], groups)).repeat(0, call.out[1] // groups)


def _rolling_macs(call: Call) -> int:
    return prod(call.out) * int(call["weight"].shape[1])


@unary("convsmith.rolling_pointwise.default", macs=_rolling_macs, ptflops=_rolling_macs, kind="conv")
def rolling(call: Call, x: Reach) -> Reach:
    """Output o sees a window of channels that rolls on with o (Wang et al., CIKM 2021)."""
    stride = _tuple(call["stride"], 2)
    for dim in (1, 2):
        x = x.select(dim, Taps.slide(x.shape[dim], kernel=1, stride=stride[dim - 1]))
    index = rolling_windows(x.shape[0], call.out[1], call["groups"], call["overlap"])
    return x.select(0, Taps.pick(index.numpy()))


def _linear_macs(call: Call) -> int:
    return prod(call.out) * int(call["weight"].shape[1])


def _linear_ptflops(call: Call) -> int:
    return _linear_macs(call) + (call.out[-1] if call["bias"] is not None else 0)


@unary("aten.linear.default", macs=_linear_macs, ptflops=_linear_ptflops, kind="linear")
def linear(call: Call, x: Reach) -> Reach:
    """Every output feature sees all features of the last dimension."""
    last = len(x.axes) - 1
    x = x.as_units(last)
    return x.select(last, Taps.everything(x.shape[last])).repeat(last, call.out[-1])


def _product_macs(call: Call) -> int:
    return prod(call.out) * call.input.shape[-1]


@joining("aten.matmul.default", "aten.bmm.default", "aten.mm.default", macs=_product_macs, kind="matmul")
def product(call: Call, seen: Seen) -> Answer:
    """Two activations multiplied mix globally: every element is taken to see all of both (a bound)."""
    whole = [x.whole(call.out[1:]) for x in seen if x is not None]
    return reduce(Reach.join, whole)


def _attention_macs(call: Call) -> int:
    *_, queries, width = call["query"].shape
    keys, values = call["key"].shape[-2], call["value"].shape[-1]
    return prod(call["query"].shape[:-2]) * int(queries * keys * (width + values))


@joining("aten.scaled_dot_product_attention.default", macs=_attention_macs, kind="attention")
def attention(call: Call, seen: Seen) -> Answer:
    """Every query sees every key and value."""
    return product(call, seen)


# --- pooling -----------------------------------------------------------------------------------------------------------


@unary("aten.max_pool1d.default", "aten.max_pool2d.default", "aten.max_pool3d.default", ptflops=in_numel)
def max_pool(call: Call, x: Reach) -> Reach:
    """Slide a window over each channel."""
    n = len(call.out) - 2
    return _pool(call, x, dilation=_tuple(call["dilation"], n))


@unary("aten.avg_pool1d.default", "aten.avg_pool2d.default", "aten.avg_pool3d.default", ptflops=in_numel)
def avg_pool(call: Call, x: Reach) -> Reach:
    """Slide a window over each channel."""
    return _pool(call, x, dilation=(1,) * (len(call.out) - 2))


def _pool(call: Call, x: Reach, dilation: tuple[int, ...]) -> Reach:
    n = len(dilation)
    kernel = _tuple(call["kernel_size"], n)
    steps = zip(
        kernel, _tuple(call["stride"], n, kernel), _tuple(call["padding"], n), dilation, call.out[2:], strict=True
    )
    for dim, (size, stride, padding, spread, outputs) in enumerate(steps, 1):
        x = x.select(dim, Taps.slide(x.shape[dim], size, stride, padding, spread, outputs))
    return x


@unary(
    *(f"aten.adaptive_avg_pool{n}d.default" for n in (1, 2, 3)),
    *(f"aten.adaptive_max_pool{n}d.default" for n in (1, 2, 3)),
    ptflops=in_numel,
)
def adaptive_pool(call: Call, x: Reach) -> Reach:
    """Cut each axis into bins."""
    for dim, outputs in enumerate(call.out[2:], 1):
        x = x.select(dim, Taps.bins(x.shape[dim], outputs))
    return x


# --- element by element ------------------------------------------------------------------------------------------------

_ACTIVATIONS = (
    "relu relu6 hardtanh leaky_relu elu prelu gelu silu mish sigmoid tanh hardswish hardsigmoid softplus selu"
)
_COPIES = "clone contiguous detach alias dropout feature_dropout alpha_dropout lift_fresh_copy"
_SCALARS = "abs neg exp log sqrt rsqrt square pow clamp clamp_min clamp_max reciprocal"
_SCALAR_FORMS = [f"aten.{op}.Tensor_Scalar" for op in ("pow",)] + ["aten._to_copy.default", "aten.to.dtype"]


@unary(*(f"aten.{op}{place}.default" for op in _ACTIVATIONS.split() for place in ("", "_")), ptflops=out_numel)
def activation(call: Call, x: Reach) -> Reach:
    """Nothing moves."""
    return x


@unary(*(f"aten.{op}{place}.default" for op in f"{_COPIES} {_SCALARS}".split() for place in ("", "_")), *_SCALAR_FORMS)
def elementwise(call: Call, x: Reach) -> Reach:
    """Nothing moves."""
    return x


def _norm_ptflops(call: Call) -> int:
    return 2 * in_numel(call)


@unary("aten.batch_norm.default", ptflops=_norm_ptflops)
def batch_norm(call: Call, x: Reach) -> Reach:
    """In evaluation a scale and a shift per channel: nothing moves."""
    return x


@unary("aten.layer_norm.default")
def layer_norm(call: Call, x: Reach) -> Reach:
    """The statistics mix the normalized dimensions."""
    for dim in range(len(x.axes) - len(call["normalized_shape"]), len(x.axes)):
        x = _everywhere(x, dim)
    return x


@unary("aten.softmax.int")
def softmax(call: Call, x: Reach) -> Reach:
    """The sum mixes one dimension."""
    return _everywhere(x, _dim(call, call["dim"]))


def _everywhere(x: Reach, dim: int) -> Reach:
    size = x.shape[dim]
    return x.select(dim, Taps.pick(np.arange(size)[None].repeat(size, 0)))


@joining(*(f"aten.{op}{place}.Tensor" for op in ("add", "sub", "div") for place in ("", "_")), "aten.maximum.default")
def add(call: Call, seen: Seen) -> Answer:
    """The union of what the operands see."""
    return _join(call, [x for x in seen if x is not None])


@joining("aten.mul.Tensor", "aten.mul_.Tensor")
def multiply(call: Call, seen: Seen) -> Answer:
    """A union, but a factor broadcast over the whole map is a gate: it widens nothing and is flagged."""
    present = [x for x in seen if x is not None]
    factors = [x for x in present if not _is_gate(x, call.out[1:])]
    if not factors or len(factors) == len(present):
        return _join(call, present)
    joined = _join(call, factors)
    return None if joined is None else joined.with_gate()


def _is_gate(x: Reach, out: Sequence[int]) -> bool:
    inner, outer = x.shape[1:], tuple(out)[1:]
    return prod(outer) > 1 and prod(inner[-len(outer) :] if outer else ()) == 1


def _join(call: Call, present: list[Reach]) -> Answer:
    shape = call.out[1:]
    like = next((x for x in present if x.shape == shape), None)
    return None if like is None else reduce(Reach.join, [x.expand(like) for x in present])


# --- shapes ------------------------------------------------------------------------------------------------------------


def _dim(call: Call, dim: int) -> int:
    """A dimension argument of the first operand, without the batch."""
    return dim % len(call.input.shape) - 1


@unary(
    "aten.view.default", "aten.reshape.default", "aten.flatten.using_ints", "aten.unflatten.int",
    "aten._unsafe_view.default", "aten.squeeze.dim", "aten.squeeze.dims", "aten.unsqueeze.default",
)  # fmt: skip
def reshape(call: Call, x: Reach) -> Answer:
    """The same elements under another shape; a batch dimension that takes part is beyond this rule."""
    return x.reshape(call.out[1:]) if call.out[0] == call.input.shape[0] else None


@unary("aten.permute.default")
def permute(call: Call, x: Reach) -> Answer:
    """Dimensions in a new order."""
    order = [_dim(call, d) for d in call["dims"]]
    return x.permute(order[1:]) if order[0] == -1 else None


@unary("aten.transpose.int")
def transpose(call: Call, x: Reach) -> Answer:
    """Two dimensions change places."""
    order = list(range(len(x.axes)))
    first, second = _dim(call, call["dim0"]), _dim(call, call["dim1"])
    if min(first, second) < 0:
        return None
    order[first], order[second] = order[second], order[first]
    return x.permute(order)


@unary("aten.slice.Tensor")
def slice_(call: Call, x: Reach) -> Answer:
    """Every step-th index from start."""
    dim = _dim(call, call["dim"])
    if dim < 0:
        return x if call.out == call.input.shape else None
    start = call["start"] or 0
    start = max(start + x.shape[dim], 0) if start < 0 else start
    return x.select(dim, Taps.window(x.shape[dim], start, call.out[dim + 1], call["step"]))


@unary("aten.pad.default", "aten.constant_pad_nd.default")
def pad(call: Call, x: Reach) -> Answer:
    """Constants around (negative: a crop); the pad list runs from the last dimension backwards."""
    if call.args.get("mode", "constant") != "constant":
        return None
    for place, before in enumerate(call["pad"][::2]):
        dim = len(x.axes) - 1 - place
        x = x.select(dim, Taps.window(x.shape[dim], -before, call.out[dim + 1]))
    return x


@joining("aten.cat.default")
def concatenate(call: Call, seen: Seen) -> Answer:
    """Operands one behind the other; one that sees nothing keeps its place."""
    like = next(x for x in seen if x is not None)
    dim = _dim(call, call["dim"])
    parts = [x if x is not None else _blank(like, operand) for operand, x in zip(call.operands, seen, strict=True)]
    return reduce(lambda a, b: a.concatenate(b, dim), parts)


def _blank(like: Reach, operand: Operand) -> Reach:
    units = [size for size, axis in zip(operand.shape[1:], like.axes, strict=True) if axis is None]
    return like.nothing(units)


@unary("aten.split.Tensor", "aten.split_with_sizes.default", "aten.chunk.default")
def split(call: Call, x: Reach) -> Answer:
    """Runs of one dimension."""
    dim = _dim(call, call["dim"])
    starts = np.cumsum([0, *(shape[dim + 1] for shape in call.outs)])
    return tuple(
        x.select(dim, Taps.window(x.shape[dim], int(start), shape[dim + 1]))
        for start, shape in zip(starts, call.outs, strict=False)
    )


@unary("aten.mean.dim", "aten.sum.dim_IntList", "aten.amax.default")
def reduction(call: Call, x: Reach) -> Reach:
    """One element that sees the whole of each reduced dimension."""
    dims = sorted((_dim(call, d) for d in _tuple(call["dim"], 1)), reverse=True)
    for dim in dims:
        x = x.select(dim, Taps.everything(x.shape[dim]))
        x = x if call["keepdim"] else x.drop(dim)
    return x


@unary("aten.roll.default")
def roll(call: Call, x: Reach) -> Reach:
    """Indices move round."""
    for shift, dim in zip(_tuple(call["shifts"], 1), map(lambda d: _dim(call, d), call["dims"]), strict=True):
        size = x.shape[dim]
        x = x.select(dim, Taps.pick((np.arange(size)[:, None] - shift) % size))
    return x
