"""Ops that pool: over a sliding window, or to a given size."""

from convsmith.graph.call import Answer, Call, in_numel, numbers, unary
from convsmith.reach import Reach
from convsmith.reach.windows import Taps


def _axes(call: Call) -> int:
    """How many axes an op named like `max_pool2d` works on: the last ones."""
    return next(int(digit) for digit in call.op if digit.isdigit())


@unary(*(f"aten.max_pool{n}d.default" for n in (1, 2, 3)), ptflops=in_numel)
def max_pool(call: Call, x: Reach) -> Reach:
    """Slide a window over each channel."""
    return _pool(call, x, numbers(call["dilation"], _axes(call)))


@unary("aten.max_pool1d_with_indices.default", "aten.max_pool2d_with_indices.default",
       "aten.max_pool3d_with_indices.default", ptflops=in_numel)  # fmt: skip
def max_pool_with_indices(call: Call, x: Reach) -> Answer:
    """The same for the largest values, and where they are."""
    pooled = _pool(call, x, numbers(call["dilation"], _axes(call)))
    return pooled, pooled


@unary(*(f"aten.avg_pool{n}d.default" for n in (1, 2, 3)), ptflops=in_numel)
def avg_pool(call: Call, x: Reach) -> Reach:
    """Slide a window over each channel."""
    return _pool(call, x, (1,) * _axes(call))


def _pool(call: Call, x: Reach, dilation: tuple[int, ...]) -> Reach:
    n = len(dilation)
    kernel = numbers(call["kernel_size"], n)
    steps = zip(
        kernel, numbers(call["stride"], n, kernel), numbers(call["padding"], n), dilation, call.out[-n:], strict=True
    )
    for dim, (size, stride, padding, spread, outputs) in enumerate(steps, len(call.out) - n):
        x = x.select(dim, Taps.slide(x.shape[dim], size, stride, padding, spread, outputs))
    return x


@unary(*(f"aten.adaptive_avg_pool{n}d.default" for n in (1, 2, 3)), ptflops=in_numel)
def adaptive_avg_pool(call: Call, x: Reach) -> Reach:
    """Cut each axis into bins."""
    return _bins(call, x)


def _bins(call: Call, x: Reach) -> Reach:
    n = _axes(call)
    for dim in range(len(call.out) - n, len(call.out)):
        x = x.select(dim, Taps.bins(x.shape[dim], call.out[dim]))
    return x


@unary(*(f"aten.adaptive_max_pool{n}d.default" for n in (1, 2, 3)), ptflops=in_numel)
def adaptive_max_pool(call: Call, x: Reach) -> Answer:
    """The same for the largest values, and where they are."""
    pooled = _bins(call, x)
    return pooled, pooled


@unary("aten.unfold.default")
def windows(call: Call, x: Reach) -> Reach:
    """Windows along one dimension, what is in them along a new last one."""
    dim, size = call["dimension"] % len(x.shape), call["size"]
    count, rest = call.out[dim], [d for d in range(len(call.out)) if d != dim + 1]
    taps = Taps.slide(x.shape[dim], size, call["step"], outputs=count)
    x = x.select(dim, Taps.pick(taps.index.reshape(-1, 1)))
    return x.reshape((*x.shape[:dim], count, size, *x.shape[dim + 1 :])).permute([*rest, dim + 1])


@unary("aten.im2col.default")
def unfold(call: Call, x: Reach) -> Reach:
    """Every window of the map as a column: (batch, channels x taps, windows)."""
    batch, channels, *sizes = call.input.shape
    taps = [_sliding(call, axis, size) for axis, size in enumerate(sizes)]
    for dim, table in enumerate(taps, 2):  # (kernel, windows) along each axis
        x = x.select(dim, Taps.pick(table.index.T.reshape(-1, 1)))
    (high, kernel_h), (wide, kernel_w) = (table.index.shape for table in taps)
    x = x.reshape((batch, channels, kernel_h, high, kernel_w, wide)).permute([0, 1, 2, 4, 3, 5])
    return x.reshape(call.out).as_channels(1)


@unary("aten.col2im.default")
def fold(call: Call, x: Reach) -> Reach:
    """The sum of overlapping windows: the transposed of `unfold`."""
    batch, channels, *sizes = call.out
    taps = [_sliding(call, axis, size) for axis, size in enumerate(sizes)]
    (high, kernel_h), (wide, kernel_w) = (table.index.shape for table in taps)
    x = x.reshape((batch, channels, kernel_h, kernel_w, high, wide)).permute([0, 1, 2, 4, 3, 5])
    x = x.reshape((batch, channels, kernel_h * high, kernel_w * wide))
    for dim, (table, size) in enumerate(zip(taps, sizes, strict=True), 2):
        x = x.select(dim, table.flipped(size))
    return x


def _sliding(call: Call, axis: int, size: int) -> Taps:
    kernel, dilation, padding, stride = (
        numbers(call[name], 2)[axis] for name in ("kernel_size", "dilation", "padding", "stride")
    )
    return Taps.slide(size, kernel, stride, padding, dilation)
