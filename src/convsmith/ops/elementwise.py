"""Ops that work element by element: activations, normalization, sums, and products, gates among them."""

from collections.abc import Sequence
from functools import reduce
from math import prod

import numpy as np

from convsmith.call import Answer, Call, Seen, dim_of, in_numel, joining, out_numel, unary
from convsmith.reach import Reach
from convsmith.windows import Taps

# Ops that also come in place, with an underscore; the others follow them.
_ACTIVATIONS = [
    "relu",
    "relu6",
    "hardtanh",
    "leaky_relu",
    "elu",
    "gelu",
    "silu",
    "mish",
    "sigmoid",
    "tanh",
    "hardswish",
    "hardsigmoid",
    "selu",
]
_SCALARS = ["abs", "neg", "exp", "log", "sqrt", "rsqrt", "square", "clamp", "clamp_min", "clamp_max", "reciprocal"]
_COPIES = ["detach", "dropout", "feature_dropout", "alpha_dropout"]
_FORMS = (
    "aten.clone.default", "aten.contiguous.default", "aten.alias.default", "aten.lift_fresh_copy.default",
    "aten._to_copy.default", "aten.to.dtype", "aten.pow.Tensor_Scalar", "aten.pow_.Scalar",
)  # fmt: skip


def _both(ops: list[str]) -> list[str]:
    return [f"aten.{op}{place}.default" for op in ops for place in ("", "_")]


ACTIVATIONS = frozenset([*_both(_ACTIVATIONS), "aten.prelu.default", "aten.softplus.default"])


@unary(*ACTIVATIONS, ptflops=out_numel)
def activation(call: Call, x: Reach) -> Reach:
    """Nothing moves."""
    return x


@unary(*_both(_SCALARS), *_both(_COPIES), *_FORMS)
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
def softmax(call: Call, x: Reach) -> Answer:
    """The sum mixes one dimension."""
    dim = dim_of(call, call["dim"])
    return _everywhere(x, dim) if dim >= 0 else None


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


def _join(call: Call, present: list[Reach]) -> Reach | None:
    shape = call.out[1:]
    like = next((x for x in present if x.shape == shape), None)
    return None if like is None else reduce(Reach.join, [x.expand(like) for x in present])
