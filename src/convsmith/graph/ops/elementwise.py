"""Ops that work element by element: activations, casts, sums and choices, and products, gates among them."""

from collections.abc import Sequence

import numpy as np

from convsmith.graph.call import Answer, Call, Seen, joining, out_numel, shaped, unary
from convsmith.reach import Reach
from convsmith.reach.unions import union

# Ops that also come in place, with an underscore.
_ACTIVATIONS = (
    "relu", "relu6", "hardtanh", "leaky_relu", "rrelu", "elu", "celu", "selu", "gelu", "silu", "mish", "sigmoid",
    "tanh", "hardswish", "hardsigmoid", "threshold",
)  # fmt: skip
_SCALARS = (
    "abs", "neg", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "square", "clamp",
    "clamp_min", "clamp_max", "reciprocal", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "erf",
    "floor", "ceil", "round", "trunc", "frac", "sign", "nan_to_num", "logit", "bitwise_not", "logical_not",
)  # fmt: skip
_COPIES = ("detach", "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
_ALONE = (
    "aten.clone.default", "aten.contiguous.default", "aten.alias.default", "aten.lift_fresh_copy.default",
    "aten.lift_fresh.default", "aten._to_copy.default", "aten.to.dtype", "aten.to.device", "aten.to.dtype_layout",
    "aten.isnan.default", "aten.isinf.default", "aten.isfinite.default", "aten.sgn.default", "aten.pow.Tensor_Scalar",
    "aten.pow_.Scalar", "aten.pow.Scalar", "aten.rsub.Scalar", "aten.real.default", "aten.resolve_conj.default",
    "aten.resolve_neg.default",
)  # fmt: skip
_WITH_SCALAR = tuple(
    f"aten.{op}{place}.Scalar"
    for op in ("add", "sub", "mul", "div", "floor_divide", "remainder", "fmod", "gt", "ge", "lt", "le", "eq", "ne")
    for place in ("", "_")
)  # fmt: skip


def _both(ops: Sequence[str], form: str = "default") -> list[str]:
    return [f"aten.{op}{place}.{form}" for op in ops for place in ("", "_")]


ACTIVATIONS = frozenset(
    [
        *_both(_ACTIVATIONS), "aten.prelu.default", "aten.softplus.default", "aten.log_sigmoid.default",
        "aten.softshrink.default", "aten.hardshrink.default",
    ]
)  # fmt: skip


@unary(*ACTIVATIONS, ptflops=out_numel)
def activation(call: Call, x: Reach) -> Reach:
    """Nothing moves."""
    return x


ALONE = (*_both(_SCALARS), *_both(_COPIES), *_ALONE, *_WITH_SCALAR)


@unary(*ALONE)
def elementwise(call: Call, x: Reach) -> Reach:
    """Nothing moves."""
    return x


@shaped("aten.type_as.default", "aten.to.other")
def cast(call: Call, x: Reach) -> Reach:
    """The other operand gives its type alone."""
    return x


@unary("aten.zero_.default", "aten.fill_.Scalar")
def constant(call: Call, x: Reach) -> Reach:
    """What was there before is gone."""
    return x.nothing(call.out)


_SUMS = ("add", "sub", "div", "floor_divide", "remainder", "fmod", "gt", "ge", "lt", "le", "eq", "ne")
_PAIRS = ("maximum", "minimum", "fmax", "fmin", "atan2", "logaddexp", "hypot")
_BITS = ("bitwise_and", "bitwise_or", "__and__", "__or__", "__xor__")


SUMS = (
    *_both(_SUMS, "Tensor"), *(f"aten.{op}.default" for op in _PAIRS), "aten.max.other", "aten.min.other",
    *_both(["div"], "Tensor_mode"), "aten.rsub.Tensor", "aten.pow.Tensor_Tensor", "aten.where.self",
    "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar", *_both(["masked_fill"], "Scalar"),
    *_both(["masked_fill"], "Tensor"), *_both(["logical_and", "logical_or", "logical_xor"]), "aten.clamp.Tensor",
    *(f"aten.{op}.Tensor" for op in _BITS), *_both(["lerp"], "Scalar"), *_both(["lerp"], "Tensor"), *_both(["addcdiv"]),
)  # fmt: skip


@joining(*SUMS)
def add(call: Call, seen: Seen) -> Answer:
    """The union of what the operands see."""
    return union([x for x in seen if x is not None], call.out)


@joining("aten.copy_.default", "aten.fill_.Tensor")
def copy(call: Call, seen: Seen) -> Answer:
    """What was there before is gone."""
    before, now = seen
    if now is not None:
        return now.expand(call.out)
    return None if before is None else before.nothing(call.out)


@joining("aten.mul.Tensor", "aten.mul_.Tensor")
def multiply(call: Call, seen: Seen) -> Answer:
    """A union, but a factor broadcast over the whole map is a gate: it widens nothing and is flagged."""
    return _product([x for x in seen if x is not None], call.out)


@joining(*_both(["addcmul"]))
def add_product(call: Call, seen: Seen) -> Answer:
    """A sum with a product, whose factor may be a gate."""
    term, *factors = seen
    present = [x for x in factors if x is not None]
    summands = [] if term is None else [term]
    return union([*summands, _product(present, call.out)] if present else summands, call.out)


def _product(present: Sequence[Reach], out: Sequence[int]) -> Reach:
    factors = [x for x in present if not _is_gate(x, present, out)]
    if not factors or len(factors) == len(present):
        return _unless_zero(union(present, out), present)
    return _unless_zero(union(factors, out), factors).with_gate()


def _unless_zero(product: Reach, factors: Sequence[Reach]) -> Reach:
    """A bound where one factor sees nothing and another does: the first may be the zeros of a padding."""
    seeing = _seeing(product)
    return product.as_bound() if any(_seeing(x) < seeing - 1e-12 for x in factors) else product


def _seeing(x: Reach) -> float:
    """The share of elements that see something."""
    counts, filled = np.array([bits > 0 for bits in x.sets]), np.prod([w.filled for w in x.windows], axis=0)
    return float((counts[x.set_of] * np.broadcast_to(filled, x.rows)[x.window_of]).mean())


def _is_gate(x: Reach, present: Sequence[Reach], out: Sequence[int]) -> bool:
    """Whether `x` has one value for the whole map that the product is laid out on."""
    dims = range(-len(out), 0)
    walked = {d for y in present for d in dims if d >= -len(y.shape) and y.axes[d] is not None and y.shape[d] > 1}
    return bool(walked) and all(d < -len(x.shape) or x.shape[d] == 1 for d in walked)
