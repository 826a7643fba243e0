"""Translations of pools, and the padding that they share with convolutions."""

from collections.abc import Sequence
from dataclasses import dataclass

from convsmith.graph.call import Operand
from convsmith.graph.onnx.op import Declined, Emit, Misfit, Op, Shape, translates


def padding(op: Op, spans: Sequence[int], stride: Sequence[int]) -> list[tuple[int, int]]:
    """What each axis of the map is padded with before and behind; spans: kernel sides, dilation included."""
    n, mode = len(spans), op.attributes.get("auto_pad", "NOTSET")
    if mode == "VALID":
        return [(0, 0)] * n
    if mode == "NOTSET":
        pads = op.attributes.get("pads", [0] * 2 * n)
        return list(zip(pads[:n], pads[n:], strict=True))
    sizes = zip(op[0].shape[2:], spans, stride, strict=True)
    totals = [max((-(-size // step) - 1) * step + span - size, 0) for size, span, step in sizes]
    halves = [(total // 2, total - total // 2) for total in totals]
    return halves if mode == "SAME_UPPER" else [(after, before) for before, after in halves]


def padded(pads: Sequence[tuple[int, int]], op: Op, emit: Emit) -> tuple[Operand, list[int]]:
    """The input, and what is left to pad evenly; where the two sides differ, a call that pads comes before."""
    x = op[0]
    if all(before == after for before, after in pads):
        return x, [before for before, _ in pads]
    shape = tuple(size + sum(pad) for size, pad in zip(x.shape[2:], pads, strict=True))
    flat = [number for pad in reversed(pads) for number in pad]  # the last axis first
    return emit("aten.constant_pad_nd.default", (*x.shape[:2], *shape), self=x, pad=flat), [0] * len(pads)


@dataclass(frozen=True)
class _Windows:
    """A pool's attributes: sides, strides and dilations of its windows, pads, and whether the last may be a part."""

    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    pads: list[tuple[int, int]]
    ceil: bool

    @classmethod
    def of(cls, op: Op) -> "_Windows":
        """What a node says; it is declined where it has other than one, two or three dimensions."""
        kernel = list(op.attributes["kernel_shape"])
        n = len(kernel)
        if not 1 <= n <= 3:
            raise Declined
        stride, dilation = (list(op.attributes.get(name, [1] * n)) for name in ("strides", "dilations"))
        if min(*kernel, *stride, *dilation) < 1:
            raise Misfit("windows with sides, strides or dilations below 1")
        spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
        return cls(kernel, stride, dilation, padding(op, spans, stride), bool(op.attributes.get("ceil_mode")))

    def places(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """How many there are along each axis."""
        return tuple(map(self._places, sizes, self.kernel, self.stride, self.dilation, self.pads))

    def _places(self, size: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int]) -> int:
        before, behind = pads
        rest = size + before + behind - dilation * (kernel - 1) - 1
        if rest < 0:
            raise Misfit(f"a window of {kernel} leaves nothing of {size}")
        if not self.ceil:
            return rest // stride + 1
        places = -(-rest // stride) + 1
        return places if (places - 1) * stride < size + before else places - 1  # none starts in the padding behind


def _pooled(op: Op) -> Shape:
    """As ONNX's operators and its runtime have it; its own inference counts windows that start in the padding."""
    return (*op[0].shape[:2], *_Windows.of(op).places(op[0].shape[2:]))


@translates("MaxPool", "AveragePool", shape=_pooled)
def pool(op: Op, emit: Emit) -> Operand:
    """A sliding window; declined where the places of the largest values are asked for."""
    windows, largest = _Windows.of(op), op.type == "MaxPool"
    n = len(windows.kernel)
    if len(op.outs) > 1 or (not largest and max(windows.dilation) > 1):
        raise Declined
    x, pads = padded(windows.pads, op, emit)
    args = {"kernel_size": windows.kernel, "stride": windows.stride, "padding": pads, "ceil_mode": windows.ceil}
    if largest:
        return emit(f"aten.max_pool{n}d.default", op.out, self=x, dilation=windows.dilation, **args)
    return emit(f"aten.avg_pool{n}d.default", op.out, self=x, **args)


@translates("GlobalAveragePool")
def global_average_pool(op: Op, emit: Emit) -> Operand:
    """The mean of the map."""
    dims = list(range(2, len(op.out)))
    return emit("aten.mean.dim", op.out, self=op[0], dim=dims, keepdim=True)


@translates("GlobalMaxPool")
def global_max_pool(op: Op, emit: Emit) -> Operand:
    """The largest value of the map."""
    dims = list(range(2, len(op.out)))
    return emit("aten.amax.default", op.out, self=op[0], dim=dims, keepdim=True)


@translates("LRN")
def local_response_norm(op: Op, emit: Emit) -> Operand:
    """Each value by the mean square of its neighbours among the channels: a pool over a volume, as torch has it."""
    x, size = op[0], op.attributes["size"]
    batch, channels, *sizes = x.shape
    if len(sizes) != 2:
        raise Declined
    size = min(size, 2 * channels + 1)  # which is all of them, for every one
    square = emit("aten.pow.Tensor_Scalar", x.shape, self=x, exponent=2)
    volume = emit("aten.reshape.default", (batch, 1, channels, *sizes), self=square, shape=[batch, 1, channels, *sizes])
    pad, kernel = [0, 0, 0, 0, (size - 1) // 2, size // 2], [size, 1, 1]
    wider = emit("aten.constant_pad_nd.default", (batch, 1, channels + size - 1, *sizes), self=volume, pad=pad)
    args = {"kernel_size": kernel, "stride": [1], "padding": [0], "ceil_mode": False}
    mean = emit("aten.avg_pool3d.default", volume.shape, self=wider, **args)
    flat = emit("aten.reshape.default", x.shape, self=mean, shape=list(x.shape))
    return emit("aten.div.Tensor", op.out, self=x, other=flat)
