"""Rolling pointwise convolution: which channels each output reads, and the dense way to compute it in plain torch.

The dense way multiplies by the same map as a masked 1x1 kernel: one call, but `groups` times the arithmetic.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd

import torch
from torch import Tensor
from torch.nn import functional as F

from convsmith.errors import ConvsmithError, ShapeError


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

    @cached_property
    def width(self) -> int:
        """Channels of a window."""
        return self.in_channels // self.groups

    @cached_property
    def step(self) -> int:
        """Channels from one window's start to the next one's."""
        return self.width - int(self.overlap * self.width)

    @cached_property
    def distinct(self) -> int:
        """Windows until one starts where the first did: output o + distinct reads what output o reads."""
        return self.in_channels // gcd(self.in_channels, self.step)


def windows(
    in_channels: int, out_channels: int, groups: int, overlap: float, device: torch.device | str = "cpu"
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
        raise ShapeError(f"Rolling pointwise: the input must be {wanted}, got {tuple(x.shape)}.")
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
    gradients = (grad_x, grad_dense, grad_bias)
    empty = (x.new_empty(0) for _ in gradients)
    return tuple(each if want else none for each, want, none in zip(gradients, wanted, empty, strict=True))  # type: ignore[return-value]
