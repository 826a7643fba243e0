"""Rolling pointwise convolution in plain torch: which channels each output reads, and two ways to compute it on a CPU.

The dense way multiplies by the same map as a masked 1x1 kernel: one call, but `groups` times the arithmetic. The
windowed way multiplies each distinct window of channels, a view, by the rows of the weight that read it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import gcd

import torch
from torch import Tensor
from torch.nn import functional as F

from convsmith.errors import ConvsmithError

# What a product per window must spare the dense way to pay, in multiply-accumulates: for its call, some microseconds,
# and for each element that it writes, with a copy of it in channels_last, and in types that torch's products convert.
# bench/rpw.py measures both ways on either side; tests/test_rpw.py holds the numbers against what it found.
WORTH_A_CALL = 2**17
WORTH_AN_ELEMENT, WORTH_A_COPY = 32, 128
FEWEST_ROWS = 8  # of a product: with fewer it is no matrix product any more, and slow


@dataclass(frozen=True)
class Rolling:
    """Where the windows lie: output o reads `width` channels from start(o) = o step mod Cin on, going round at the end.

        width = Cin / groups,   step = width - int(overlap width)

    groups: divides in_channels; overlap: the part of a window shared with the next one, 0 <= overlap < 1.
    Raises ConvsmithError when groups or overlap do not fit.
    """

    in_channels: int
    out_channels: int
    groups: int
    overlap: float

    def __post_init__(self) -> None:
        if self.groups < 1 or self.in_channels % self.groups:
            wanted = f"groups must divide the {self.in_channels} input channels"
            raise ConvsmithError(f"Rolling pointwise: {wanted}, got {self.groups}.")
        if not 0 <= self.overlap < 1:
            raise ConvsmithError(f"Rolling pointwise: overlap must be at least 0 and less than 1, got {self.overlap}.")

    @property
    def width(self) -> int:
        """Channels of a window."""
        return self.in_channels // self.groups

    @property
    def step(self) -> int:
        """Channels from one window's start to the next one's."""
        return self.width - int(self.overlap * self.width)

    @property
    def distinct(self) -> int:
        """Windows until one starts where the first did: output o + distinct reads what output o reads."""
        return self.in_channels // gcd(self.in_channels, self.step)


def windows(
    in_channels: int, out_channels: int, groups: int, overlap: float, device: torch.device | None = None
) -> Tensor:
    """Input channels that each output channel reads, (out_channels, in_channels / groups) of int64.

        windows[o, t] = (o step + t) mod Cin

    Arguments and errors are those of `Rolling`.

    >>> windows(8, 5, groups=2, overlap=0.5).tolist()
    [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 0, 1], [0, 1, 2, 3]]
    """
    at = Rolling(in_channels, out_channels, groups, overlap)
    start = torch.arange(out_channels, device=device)[:, None] * at.step
    return (start + torch.arange(at.width, device=device)) % in_channels


def dense(weight: Tensor, in_channels: int, groups: int, overlap: float) -> Tensor:
    """The same map as a masked 1x1 kernel, (o, cg) -> (o, i, 1, 1)."""
    reads = windows(in_channels, len(weight), groups, overlap, weight.device)
    return weight.new_zeros(len(weight), in_channels).scatter(1, reads, weight)[..., None, None]


def dense_forward(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, overlap: float, stride: int) -> Tensor:
    """One dense 1x1; raises ConvsmithError on an input of another shape."""
    if x.dim() != 4 or x.shape[1] != weight.shape[1] * groups:
        wanted = f"(batch, {weight.shape[1] * groups}, height, width)"
        raise ConvsmithError(f"Rolling pointwise: the input must be {wanted}, got {tuple(x.shape)}.")
    return F.conv2d(x, dense(weight, x.shape[1], groups, overlap), bias, stride)


def dense_backward(
    grad: Tensor, x: Tensor, weight: Tensor, groups: int, overlap: float, stride: int, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """The adjoint of the dense 1x1, read back at the windows; gradients that are not wanted are empty."""
    kernel = dense(weight, x.shape[1], groups, overlap)
    grad_x, grad_dense, grad_bias = torch.ops.aten.convolution_backward(
        grad, x, kernel, [len(weight)], [stride, stride], [0, 0], [1, 1], False, [0, 0], 1, list(wanted)
    )
    if wanted[1]:
        # (o, i, 1, 1) -> (o, cg)
        grad_dense = grad_dense[..., 0, 0].gather(1, windows(x.shape[1], len(weight), groups, overlap, x.device))
    found = (grad_x, grad_dense, grad_bias)
    empty = (x.new_empty(0) for _ in found)
    return tuple(each if want else none for each, want, none in zip(found, wanted, empty, strict=True))  # type: ignore[return-value]


def pays(x: Tensor, at: Rolling, stride: int) -> bool:
    """Whether the windowed way is the faster one on a CPU, by what is worth it above."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    if stride != 1 or last == x.is_contiguous():  # neither, or a map of one pixel: no telling what the result should be
        return False
    spared = at.in_channels - at.width
    pixels = x.shape[2] * x.shape[3] * (x.shape[0] if last else 1)
    rows = at.out_channels // at.distinct
    converted = x.dtype not in (torch.float32, torch.float64)
    least = max(WORTH_AN_ELEMENT, WORTH_A_COPY * (last + converted))
    return rows >= FEWEST_ROWS and spared >= least and spared * rows * pixels >= WORTH_A_CALL * (1 + converted)


def windowed_forward(x: Tensor, weight: Tensor, bias: Tensor | None, at: Rolling) -> Tensor:
    """One product for each distinct window, written to the rows of the result that read it."""
    shape = (len(x), at.out_channels, *x.shape[2:])
    y = torch.empty(shape, dtype=x.dtype, memory_format=_format(x))
    maps, result = _matrices(x), _matrices(y)
    for start, rows in _rows(at):
        _multiply(weight[rows], _window(maps, start, at.width), result[:, rows])
    return y if bias is None else y.add_(bias[:, None, None])


def windowed_backward(
    grad: Tensor, x: Tensor, weight: Tensor, at: Rolling, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """The adjoint of `windowed_forward`, window by window; gradients that are not wanted are empty."""
    maps, above = _matrices(x), _matrices(grad.contiguous(memory_format=_format(x)))
    grad_x = torch.zeros_like(x) if wanted[0] else x.new_empty(0)
    grad_weight = torch.empty_like(weight) if wanted[1] else x.new_empty(0)
    grad_bias = grad.sum((0, 2, 3)) if wanted[2] else x.new_empty(0)
    for start, rows in _rows(at):
        if wanted[0]:
            _add(_matrices(grad_x), start, weight[rows].T, above[:, rows])
        if wanted[1]:
            grad_weight[rows] = _adjoint(above[:, rows], _window(maps, start, at.width))
    return grad_x, grad_weight, grad_bias


def _format(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _matrices(x: Tensor) -> Tensor:
    """A view (matrices, channels, pixels): one for each image, in channels_last a single one for the batch."""
    if _format(x) == torch.channels_last:
        return x.permute(1, 0, 2, 3).flatten(1)[None]
    return x.flatten(2)


# torch's batched product of a single bfloat16 matrix that is not laid out in rows is a hundred times as slow as `mm`.
def _multiply(left: Tensor, maps: Tensor, result: Tensor) -> None:
    """Write left maps[b] to each result[b]."""
    if len(maps) == 1:
        torch.mm(left, maps[0], out=result[0])
    else:
        torch.bmm(left.expand(len(maps), *left.shape), maps, out=result)


def _accumulate(left: Tensor, maps: Tensor, result: Tensor) -> None:
    """Add left maps[b] to each result[b]."""
    if len(maps) == 1:
        result[0].addmm_(left, maps[0])
    else:
        result.baddbmm_(left.expand(len(maps), *left.shape), maps)


def _adjoint(above: Tensor, maps: Tensor) -> Tensor:
    """The sum of above[b] maps[b]^T over b."""
    return torch.mm(above[0], maps[0].T) if len(maps) == 1 else torch.bmm(above, maps.mT).sum(0)


def _rows(at: Rolling) -> Iterator[tuple[int, slice]]:
    """Each distinct window's start and the outputs that read it."""
    for first in range(min(at.distinct, at.out_channels)):
        yield first * at.step % at.in_channels, slice(first, None, at.distinct)


def _window(maps: Tensor, start: int, width: int) -> Tensor:
    """The channels of a window: a view, but where it goes round."""
    over = start + width - maps.shape[1]
    return maps[:, start : start + width] if over <= 0 else torch.cat([maps[:, start:], maps[:, :over]], 1)


def _add(found: Tensor, start: int, left: Tensor, right: Tensor) -> None:
    """Add a product to the channels of a window, in place."""
    head = min(len(left), found.shape[1] - start)
    _accumulate(left[:head], right, found[:, start : start + head])
    if head < len(left):
        _accumulate(left[head:], right, found[:, : len(left) - head])
