"""Ops that pool: over a sliding window, or to a given size."""

from convsmith.call import Answer, Call, in_numel, numbers, unary
from convsmith.reach import Reach
from convsmith.windows import Taps


@unary("aten.max_pool1d.default", "aten.max_pool2d.default", "aten.max_pool3d.default", ptflops=in_numel)
def max_pool(call: Call, x: Reach) -> Reach:
    """Slide a window over each channel."""
    n = len(call.out) - 2
    return _pool(call, x, dilation=numbers(call["dilation"], n))


@unary("aten.avg_pool1d.default", "aten.avg_pool2d.default", "aten.avg_pool3d.default", ptflops=in_numel)
def avg_pool(call: Call, x: Reach) -> Reach:
    """Slide a window over each channel."""
    return _pool(call, x, dilation=(1,) * (len(call.out) - 2))


def _pool(call: Call, x: Reach, dilation: tuple[int, ...]) -> Reach:
    n = len(dilation)
    kernel = numbers(call["kernel_size"], n)
    steps = zip(
        kernel, numbers(call["stride"], n, kernel), numbers(call["padding"], n), dilation, call.out[2:], strict=True
    )
    for dim, (size, stride, padding, spread, outputs) in enumerate(steps, 1):
        x = x.select(dim, Taps.slide(x.shape[dim], size, stride, padding, spread, outputs))
    return x


@unary(*(f"aten.adaptive_avg_pool{n}d.default" for n in (1, 2, 3)), ptflops=in_numel)
def adaptive_avg_pool(call: Call, x: Reach) -> Reach:
    """Cut each axis into bins."""
    return _bins(call, x)


def _bins(call: Call, x: Reach) -> Reach:
    for dim, outputs in enumerate(call.out[2:], 1):
        x = x.select(dim, Taps.bins(x.shape[dim], outputs))
    return x


@unary(*(f"aten.adaptive_max_pool{n}d.default" for n in (1, 2, 3)), ptflops=in_numel)
def adaptive_max_pool(call: Call, x: Reach) -> Answer:
    """The same for the largest values, and where they are."""
    return _bins(call, x), _bins(call, x)
