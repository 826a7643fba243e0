"""Convolutions of every kind: plain, grouped, dilated, transposed, over one to three axes, and rolling pointwise."""

from math import prod

from convsmith.graph.call import Answer, Call, Seen, joining, numbers, unary
from convsmith.kernels import windows as rolling_windows
from convsmith.reach import Reach
from convsmith.reach.windows import Taps


def _macs(call: Call) -> int:
    return prod(call.out) * int(prod(call["weight"].shape[1:]))


def _with_bias(call: Call) -> int:
    return _macs(call) + (prod(call.out) if call["bias"] is not None else 0)


def conv_padding(call: Call) -> tuple[int, ...]:
    """Zeros before the map, per axis, with `same` and `valid` resolved."""
    kernel, padding = call["weight"].shape[2:], call["padding"]
    if padding == "same":
        return tuple(d * (k - 1) // 2 for k, d in zip(kernel, numbers(call["dilation"], len(kernel)), strict=True))
    return (0,) * len(kernel) if padding == "valid" else numbers(padding, len(kernel))


def _steps(call: Call) -> list[tuple[int, ...]]:
    """Per axis: dimension, kernel, stride, padding, dilation and outputs."""
    kernel = call["weight"].shape[2:]
    n = len(kernel)
    options = (numbers(call["stride"], n), conv_padding(call), numbers(call["dilation"], n), call.out[-n:])
    return list(zip(range(len(call.out) - n, len(call.out)), kernel, *options, strict=True))


def _grouped(call: Call, x: Reach) -> Reach:
    dim, groups = len(call.out) - len(call["weight"].shape) + 1, call["groups"]
    if groups == x.shape[dim] == call.out[dim]:
        return x  # depthwise: indices keep to themselves, also where an axis of the map stands for the channels
    x = x.as_channels(dim)
    return x.select(dim, Taps.groups(x.shape[dim], groups)).repeat(dim, call.out[dim] // groups)


def _weighed(call: Call, seen: Seen, moved: Reach) -> Reach:
    """A weight that sees the input is one for the whole map: a gate."""
    flags = zip(call.operands, seen, strict=True)
    gated = any(y is not None and operand.name == call["weight"].name for operand, y in flags)
    return moved.with_gate() if gated else moved


@joining(
    *(f"aten.conv{n}d.{form}" for n in (1, 2, 3) for form in ("default", "padding")),
    macs=_macs, ptflops=_with_bias, kind="conv",
)  # fmt: skip
def convolution(call: Call, seen: Seen) -> Answer:
    """Every output channel sees its group; every position what the kernel covers."""
    x = seen[0]
    if x is None:
        return None  # a kernel made from the input slides over constants
    for dim, kernel, stride, padding, dilation, outputs in _steps(call):
        x = x.select(dim, Taps.slide(x.shape[dim], kernel, stride, padding, dilation, outputs))
    return _weighed(call, seen, _grouped(call, x))


def _transposed_macs(call: Call) -> int:
    n = len(call["weight"].shape) - 2
    return prod(call.input.shape[:-n]) * prod(call.input.shape[-n:]) * int(prod(call["weight"].shape[1:]))


def _transposed_with_bias(call: Call) -> int:
    return _transposed_macs(call) + (prod(call.out) if call["bias"] is not None else 0)


@joining(
    "aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input",
    macs=_transposed_macs, ptflops=_transposed_with_bias, kind="conv",
)  # fmt: skip
def transposed(call: Call, seen: Seen) -> Answer:
    """Every position sees the inputs that the kernel spreads onto it, which differ by phase where the stride is wider.

    Windows are exact; the window without borders is the widest phase's, a bound where more layers follow.
    """
    x = seen[0]
    if x is None:
        return None
    for dim, kernel, stride, padding, dilation, outputs in _steps(call):
        x = x.select(dim, Taps.spread(x.shape[dim], kernel, stride, padding, dilation, outputs))
    return _weighed(call, seen, _grouped(call, x))


def _rolling_macs(call: Call) -> int:
    return prod(call.out) * int(call["weight"].shape[1])


@unary("convsmith.rolling_pointwise.default", macs=_rolling_macs, ptflops=_rolling_macs, kind="conv")
def rolling(call: Call, x: Reach) -> Reach:
    """Output o sees a window of channels that rolls on with o (Wang et al., CIKM 2021)."""
    for dim, stride in enumerate(numbers(call["stride"], 2), 2):
        x = x.select(dim, Taps.slide(x.shape[dim], kernel=1, stride=stride))
    x = x.as_channels(1)
    index = rolling_windows(x.shape[1], call.out[1], call["groups"], call["overlap"])
    return x.select(1, Taps.pick(index.numpy()))


@unary("torchvision.deform_conv2d.default")
def deformable(call: Call, x: Reach) -> Reach:
    """Offsets read from the input lead anywhere: the whole map, by group of channels (a bound)."""
    x = x.reduce(2, 3)
    return _grouped(call, x).expand(call.out).as_bound()
