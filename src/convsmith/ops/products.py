"""Ops that multiply: convolutions, rolling pointwise, linear layers, matrix products, attention."""

from functools import reduce
from math import prod

from convsmith.call import Answer, Call, Seen, joining, numbers, unary
from convsmith.kernels import windows as rolling_windows
from convsmith.reach import Reach
from convsmith.windows import Taps


def _conv_macs(call: Call) -> int:
    return prod(call.out) * int(prod(call["weight"].shape[1:]))


def _conv_ptflops(call: Call) -> int:
    return _conv_macs(call) + (prod(call.out) if call["bias"] is not None else 0)


def conv_padding(call: Call) -> tuple[int, ...]:
    """Zeros before the map, per axis, with `same` and `valid` resolved."""
    kernel, padding = call["weight"].shape[2:], call["padding"]
    if padding == "same":
        return tuple(d * (k - 1) // 2 for k, d in zip(kernel, numbers(call["dilation"], len(kernel)), strict=True))
    return (0,) * len(kernel) if padding == "valid" else numbers(padding, len(kernel))


@unary(
    *(f"aten.conv{n}d.{form}" for n in (1, 2, 3) for form in ("default", "padding")),
    macs=_conv_macs, ptflops=_conv_ptflops, kind="conv",
)  # fmt: skip
def convolution(call: Call, x: Reach) -> Answer:
    """Every output channel sees its group; every position what the kernel covers. Weights must not see the input."""
    if not call["weight"].own:
        return None
    kernel, groups = call["weight"].shape[2:], call["groups"]
    n = len(kernel)
    steps = zip(
        kernel, numbers(call["stride"], n), conv_padding(call), numbers(call["dilation"], n), call.out[2:], strict=True
    )
    for dim, (size, stride, padding, dilation, outputs) in enumerate(steps, 1):
        x = x.select(dim, Taps.slide(x.shape[dim], size, stride, padding, dilation, outputs))
    if groups == x.shape[0] == call.out[1]:
        return x  # depthwise: indices keep to themselves, also where an axis of the map stands for the channels
    x = x.as_units(0)
    return x.select(0, Taps.groups(x.shape[0], groups)).repeat(0, call.out[1] // groups)


def _rolling_macs(call: Call) -> int:
    return prod(call.out) * int(call["weight"].shape[1])


@unary("convsmith.rolling_pointwise.default", macs=_rolling_macs, ptflops=_rolling_macs, kind="conv")
def rolling(call: Call, x: Reach) -> Reach:
    """Output o sees a window of channels that rolls on with o (Wang et al., CIKM 2021)."""
    stride = numbers(call["stride"], 2)
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
    return int(prod(call["query"].shape[:-2]) * queries * keys * (width + values))


@joining("aten.scaled_dot_product_attention.default", macs=_attention_macs, kind="attention")
def attention(call: Call, seen: Seen) -> Answer:
    """Every query sees every key and value."""
    return product(call, seen)
