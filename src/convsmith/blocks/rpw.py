"""Rolling pointwise convolution: a 1x1 convolution whose outputs read overlapping windows of the input channels."""

from collections.abc import Callable
from math import prod
from typing import Any, final

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from convsmith.errors import ConvsmithError


def windows(
    in_channels: int, out_channels: int, groups: int, overlap: float, device: torch.device | None = None
) -> Tensor:
    """Input channels that each output channel reads, (out_channels, in_channels / groups) of int64.

        windows[o, t] = (o step + t) mod Cin,   cg = Cin / groups,   step = cg - int(overlap cg)

    The start o * step mod Cin repeats after Cin / gcd(Cin, step) outputs, which is the number of distinct windows.
    groups: divides in_channels; overlap: the part of a window shared with the next one, 0 <= overlap < 1.
    Raises ConvsmithError when groups or overlap do not fit.

    >>> windows(8, 5, groups=2, overlap=0.5).tolist()
    [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 0, 1], [0, 1, 2, 3]]
    """
    _check(in_channels, groups, overlap)
    width = in_channels // groups
    step = width - int(overlap * width)
    start = torch.arange(out_channels, device=device)[:, None] * step
    return (start + torch.arange(width, device=device)) % in_channels


def _check(in_channels: int, groups: int, overlap: float) -> None:
    if groups < 1 or in_channels % groups:
        raise ConvsmithError(f"Rolling pointwise: groups must divide the {in_channels} input channels, got {groups}.")
    if not 0 <= overlap < 1:
        raise ConvsmithError(f"Rolling pointwise: overlap must be at least 0 and less than 1, got {overlap}.")


def _dense(weight: Tensor, in_channels: int, groups: int, overlap: float) -> Tensor:
    """The same map as a masked 1x1 kernel, (o, cg) -> (o, i, 1, 1)."""
    reads = windows(in_channels, len(weight), groups, overlap, weight.device)
    return weight.new_zeros(len(weight), in_channels).scatter(1, reads, weight)[..., None, None]


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, overlap: float, stride: int) -> Tensor:
    # The masked dense 1x1 multiplies g times more than it must, but it copies nothing and one call does it. Gathering
    # the windows first would copy x up to cg times over: each channel stands in cg of the Cin windows when step is 1.
    if x.dim() != 4 or x.shape[1] != weight.shape[1] * groups:
        wanted = f"(batch, {weight.shape[1] * groups}, height, width)"
        raise ConvsmithError(f"Rolling pointwise: the input must be {wanted}, got {tuple(x.shape)}.")
    return F.conv2d(x, _dense(weight, x.shape[1], groups, overlap), bias, stride)


@torch.library.custom_op("convsmith::rolling_pointwise", mutates_args=())
def rolling_pointwise(
    x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, overlap: float, stride: int
) -> Tensor:
    """Convolve each window of channels with its own row of the weight.

        y[b, o, i, j] = bias[o] + sum_t weight[o, t] x[b, windows[o, t], stride i, stride j]

    x: (batch, Cin, height, width); weight: (Cout, Cin / groups); bias: (Cout) or None.
    From Wang et al., CIKM 2021 (rolling pointwise) and Wang et al., IPDPS 2021 (sliding-channel convolution).

    >>> x, weight = torch.arange(4.0).reshape(1, 4, 1, 1), torch.ones(4, 2)
    >>> rolling_pointwise(x, weight, None, groups=2, overlap=0.5, stride=1).flatten().tolist()
    [1.0, 3.0, 5.0, 3.0]
    """
    return _forward(x, weight, bias, groups, overlap, stride)


# Plain ATen throughout, so that on fake tensors the same code answers shape, type and memory format.
rolling_pointwise.register_fake(_forward)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, *ctx.settings = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The adjoint: that of the dense 1x1, read back at the windows."""
    x, weight = ctx.saved_tensors
    groups, overlap, stride = ctx.settings
    dense = _dense(weight, x.shape[1], groups, overlap)
    grad_x, grad_dense, grad_bias = torch.ops.aten.convolution_backward(
        grad, x, dense, [len(weight)], [stride, stride], [0, 0], [1, 1], False, [0, 0], 1, ctx.needs_input_grad[:3]
    )
    if grad_dense is not None:
        # (o, i, 1, 1) -> (o, cg)
        grad_dense = grad_dense[..., 0, 0].gather(1, windows(x.shape[1], len(weight), groups, overlap, x.device))
    return grad_x, grad_dense, grad_bias, None, None, None


rolling_pointwise.register_autograd(_backward, setup_context=_save)


def _autocast(device: str) -> Callable[..., Tensor]:
    """The operator in the type that the surrounding torch.autocast asks for."""

    def cast(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, overlap: float, stride: int) -> Tensor:
        dtype = torch.get_autocast_dtype(device)
        low = None if bias is None else bias.to(dtype)
        with torch.autocast(device, enabled=False):
            result: Tensor = rolling_pointwise(x.to(dtype), weight.to(dtype), low, groups, overlap, stride)
        return result

    return cast


# torch.library.register_autocast fixes one type for good; these follow bfloat16 and float16 alike.
_LIBRARY = torch.library.Library("convsmith", "FRAGMENT")  # type: ignore[no-untyped-call]
for _device in ("cpu", "cuda"):
    _LIBRARY.impl("rolling_pointwise", _autocast(_device), f"Autocast{_device.upper()}")  # type: ignore[no-untyped-call]


@register_flop_formula(torch.ops.convsmith.rolling_pointwise)
def _flops(
    x: Any, weight: Any, bias: Any, groups: int, overlap: float, stride: int, *, out_shape: tuple[int, ...], **_: Any
) -> int:
    """Two per multiply-accumulate of the definition, whatever the kernel really does: those of a grouped pointwise."""
    return 2 * int(weight[1]) * prod(out_shape)


def decompositions() -> dict[OpOverload, Callable[..., Tensor]]:
    """Table for `ExportedProgram.run_decompositions` that turns the operator into plain ATen, as ONNX needs it."""
    return {torch.ops.convsmith.rolling_pointwise.default: _forward}


@final
class RollingPointwise(nn.Module):
    """Rolling pointwise convolution with the parameters and multiply-accumulates of a pointwise one in `groups` groups.

    Output o reads in_channels / groups input channels, starting `step` after those of output o - 1 and going round at
    the end, so that stacked layers mix all channels where stacked grouped ones never do; groups=1 is a 1x1 convolution.
    Weight and bias start uniform in +-1 / sqrt(in_channels / groups). Raises as `windows` does.

    >>> layer = RollingPointwise(8, 16, groups=2, overlap=0.5)
    >>> layer(torch.zeros(1, 8, 4, 4)).shape, sum(p.numel() for p in layer.parameters())
    (torch.Size([1, 16, 4, 4]), 64)
    """

    def __init__(
        self, in_channels: int, out_channels: int, groups: int, overlap: float, bias: bool = False, stride: int = 1
    ) -> None:
        super().__init__()
        _check(in_channels, groups, overlap)
        self.groups, self.overlap, self.stride = groups, overlap, stride
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        bound = self.weight.shape[1] ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, height, width) -> (batch, out_channels, height / stride, width / stride), rounded up."""
        result: Tensor = rolling_pointwise(x, self.weight, self.bias, self.groups, self.overlap, self.stride)
        return result

    def extra_repr(self) -> str:
        """Say what torch prints between the brackets."""
        out_channels, width = self.weight.shape
        return (
            f"{width * self.groups}, {out_channels}, groups={self.groups}, overlap={self.overlap}, "
            f"stride={self.stride}, bias={self.bias is not None}"
        )
