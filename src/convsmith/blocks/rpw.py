"""Rolling pointwise convolution: a 1x1 convolution whose outputs read overlapping windows of the input channels."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from math import prod
from typing import Any, final

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils.flop_counter import register_flop_formula

from convsmith.kernels.rolling import Rolling, dense_backward, dense_forward
from convsmith.kernels.rolling_banded import banded_backward, banded_forward, fastest


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
    band = fastest(x, weight, groups, overlap, stride)
    if band is None:
        return dense_forward(x, weight, bias, groups, overlap, stride)
    return banded_forward(x, weight, bias, band)


@torch.library.custom_op("convsmith::rolling_pointwise_backward", mutates_args=())
def rolling_pointwise_backward(
    grad: Tensor, x: Tensor, weight: Tensor, groups: int, overlap: float, stride: int, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """The adjoint of `rolling_pointwise`: gradients to x, weight and bias, empty where `wanted` says no.

    grad: shaped like the result of `rolling_pointwise`.
    """
    band = fastest(x, weight, groups, overlap, stride)
    if band is None:
        return dense_backward(grad, x, weight, groups, overlap, stride, wanted)
    return banded_backward(grad, x, weight, band, wanted)


# The dense way is plain ATen, so that on fake tensors the same code answers shape, type and memory format.
rolling_pointwise.register_fake(dense_forward)
rolling_pointwise_backward.register_fake(dense_backward)


@rolling_pointwise.register_kernel("cuda")
def _cuda(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, overlap: float, stride: int) -> Tensor:
    if _fused(x):
        from convsmith.kernels.rolling_triton import fused_forward

        return fused_forward(x, weight, bias, groups, overlap, stride)
    return dense_forward(x, weight, bias, groups, overlap, stride)


@rolling_pointwise_backward.register_kernel("cuda")
def _cuda_backward(
    grad: Tensor, x: Tensor, weight: Tensor, groups: int, overlap: float, stride: int, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    if _fused(x):
        from convsmith.kernels.rolling_triton import fused_backward

        return fused_backward(grad, x, weight, groups, overlap, stride, wanted)
    return dense_backward(grad, x, weight, groups, overlap, stride, wanted)


def _fused(x: Tensor) -> bool:
    return find_spec("triton") is not None and x.dtype in (torch.float32, torch.float16, torch.bfloat16)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, *ctx.settings = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    wanted = list(ctx.needs_input_grad[:3])
    gradients = rolling_pointwise_backward(grad, *ctx.saved_tensors, *ctx.settings, wanted)
    return *(each if want else None for each, want in zip(gradients, wanted, strict=True)), None, None, None


rolling_pointwise.register_autograd(_backward, setup_context=_save)


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    grad, x, weight, *ctx.settings, ctx.wanted = inputs
    ctx.save_for_backward(grad, x, weight)


def _twice(ctx: Any, to_x: Tensor, to_weight: Tensor, to_bias: Tensor) -> tuple[Tensor | None, ...]:
    """The adjoint's own: it is linear in each of grad, x and weight, as the operator is in x and weight."""
    grad, x, weight = ctx.saved_tensors
    by_x, by_weight, by_bias = ctx.wanted
    to_grad = torch.zeros_like(grad)
    grad_x = grad_weight = None
    if by_x:
        to_grad = to_grad + rolling_pointwise(to_x, weight, None, *ctx.settings)
        grad_weight = rolling_pointwise_backward(grad, to_x, weight, *ctx.settings, [False, True, False])[1]
    if by_weight:
        to_grad = to_grad + rolling_pointwise(x, to_weight, None, *ctx.settings)
        grad_x = rolling_pointwise_backward(grad, x, to_weight, *ctx.settings, [True, False, False])[0]
    if by_bias:
        to_grad = to_grad + to_bias[:, None, None]
    return to_grad, grad_x, grad_weight, None, None, None, None


rolling_pointwise_backward.register_autograd(_twice, setup_context=_save_backward)


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
    return {torch.ops.convsmith.rolling_pointwise.default: dense_forward}


@final
class RollingPointwise(nn.Module):
    """Rolling pointwise convolution with the parameters and multiply-accumulates of a pointwise one in `groups` groups.

    Output o reads in_channels / groups input channels, starting `step` after those of output o - 1 and going round at
    the end. So stacked layers mix all channels, which stacked grouped ones never do. groups=1 is a 1x1 convolution.
    Weight and bias start uniform in +-1 / sqrt(in_channels / groups). Raises as `Rolling` does.

    >>> layer = RollingPointwise(8, 16, groups=2, overlap=0.5)
    >>> layer(torch.zeros(1, 8, 4, 4)).shape, sum(p.numel() for p in layer.parameters())
    (torch.Size([1, 16, 4, 4]), 64)
    """

    def __init__(
        self, in_channels: int, out_channels: int, groups: int, overlap: float, bias: bool = False, stride: int = 1
    ) -> None:
        super().__init__()
        Rolling(in_channels, out_channels, groups, overlap)  # refuses what does not fit
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
