"""Rolling pointwise convolution for GPUs in Triton: every window read where it lies, accumulated in float32.

Outputs o, o + lap, o + 2 lap, .. read windows that start at the same channel, or drift by a few channels each. For a
block of pixels a program computes `LAPS` of them for all outputs of a lap at once. It is a batched product over the
channels that these windows cover together, with zeros where a single one does not. Neighbouring outputs so stay in one
program, which lets it write them side by side. Tensors come with their strides, so that either memory format will do.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from convsmith.errors import ShapeError
from convsmith.kernels.rolling import Rolling

PIXELS, LAPS, CHANNELS = 64, 16, 32  # of one program, one product and one step of its loop; tl.dot needs 16 at least
LONGEST_LAP = 32  # outputs of a lap; their sums, LAPS for each of 512 / lap pixels, fill half of a program's registers
SPLITS = 64  # parts of the pixels that the weight's gradient is summed over in parallel


# Triton's interpreter multiplies the bits of bfloat16 as if they were whole numbers: there they are widened first.
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def _product(left, right, total, PRECISION: tl.constexpr):
    """Total + left right, in float32."""
    if INTERPRETED:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, total, input_precision=PRECISION)


@triton.jit
def _address(pixel, height, width, image_stride, row_stride, column_stride):
    """Offsets of pixels counted over all images."""
    image, place = pixel // (height * width), pixel % (height * width)
    return image.to(tl.int64) * image_stride + (place // width) * row_stride + (place % width) * column_stride


@triton.jit
def _forward(
    x, weight, bias, y, pixels, height, width, inputs, outputs, window, step, below, cover,
    xb, xc, xh, xw, yb, yc, yh, yw,
    lap: tl.constexpr, LAP: tl.constexpr, BIASED: tl.constexpr, PRECISION: tl.constexpr,
    PIXELS: tl.constexpr, LAPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """y[p, o] = bias[o] + sum over channels c of x[p, c] weight[o, c - start(o)]."""
    pixel = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    place = tl.arange(0, LAP)
    first = tl.program_id(0) * LAPS * lap + place
    out = first[:, None] + lap * tl.arange(0, LAPS)[None, :]  # (lap, laps)
    real = (place < lap)[:, None] & (out < outputs)
    start = (out * step) % inputs
    low = (first * step + below) % inputs
    from_x = x + _address(pixel, height, width, xb, xh, xw)
    total = tl.zeros((LAP, PIXELS, LAPS), tl.float32)
    for at in range(0, cover, CHANNELS):
        ahead = at + tl.arange(0, CHANNELS)
        channel = low[:, None] + ahead[None, :]  # (lap, channels)
        channel = tl.where(channel >= inputs, channel - inputs, channel)
        inside = (ahead < cover)[None, :] & (place < lap)[:, None]
        maps = tl.load(
            from_x[None, :, None] + channel[:, None, :] * xc,
            mask=inside[:, None, :] & (pixel < pixels)[None, :, None], other=0.0,
        )  # fmt: skip
        tap = channel[:, :, None] - start[:, None, :]  # (lap, channels, laps)
        tap = tl.where(tap < 0, tap + inputs, tap)
        taps = tl.load(
            weight + out[:, None, :] * window + tap,
            mask=inside[:, :, None] & real[:, None, :] & (tap < window), other=0.0,
        )  # fmt: skip
        total = _product(maps, taps, total, PRECISION)
    if BIASED:
        total += tl.load(bias + out, mask=real, other=0.0).to(tl.float32)[:, None, :]
    to_y = y + _address(pixel, height, width, yb, yh, yw)
    tl.store(
        to_y[None, :, None] + out[:, None, :] * yc, total.to(y.dtype.element_ty),
        mask=real[:, None, :] & (pixel < pixels)[None, :, None],
    )  # fmt: skip


@triton.jit
def _to_input(
    grad, weight, grad_x, pixels, height, width, inputs, outputs, window, step, below, cover,
    gb, gc, gh, gw, xb, xc, xh, xw,
    lap: tl.constexpr, PRECISION: tl.constexpr,
    PIXELS: tl.constexpr, LAPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """grad_x[p, c] = sum over outputs o of grad[p, o] weight[o, c - start(o)], skipping blocks that do not read c."""
    pixel = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    low_channel = tl.program_id(0) * CHANNELS
    channel = low_channel + tl.arange(0, CHANNELS)
    from_grad = grad + _address(pixel, height, width, gb, gh, gw)
    total = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for block in range(0, lap * tl.cdiv(outputs, lap * LAPS)):
        first = block % lap + (block // lap) * LAPS * lap
        low = (first * step + below) % inputs
        ahead, behind = (low_channel - low + inputs) % inputs, (low - low_channel + inputs) % inputs
        if (ahead < cover) | (behind < CHANNELS):
            out = first + lap * tl.arange(0, LAPS)
            above = tl.load(
                from_grad[:, None] + out[None, :] * gc,
                mask=(pixel < pixels)[:, None] & (out < outputs)[None, :], other=0.0,
            )  # fmt: skip
            tap = channel[None, :] - ((out * step) % inputs)[:, None]  # (laps, channels)
            tap = tl.where(tap < 0, tap + inputs, tap)
            real = (out < outputs)[:, None] & (channel < inputs)[None, :] & (tap < window)
            taps = tl.load(weight + out[:, None] * window + tap, mask=real, other=0.0)
            total = _product(above, taps, total, PRECISION)
    to_x = grad_x + _address(pixel, height, width, xb, xh, xw)
    tl.store(
        to_x[:, None] + channel[None, :] * xc, total.to(grad_x.dtype.element_ty),
        mask=(pixel < pixels)[:, None] & (channel < inputs)[None, :],
    )  # fmt: skip


@triton.jit
def _to_weight(
    grad, x, parts, bias_parts, pixels, share, height, width, inputs, outputs, window, step, below, cover,
    gb, gc, gh, gw, xb, xc, xh, xw,
    lap: tl.constexpr, BIASED: tl.constexpr, PRECISION: tl.constexpr,
    PIXELS: tl.constexpr, LAPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """parts[s, o, t] = sum over the pixels of part s of grad[p, o] x[p, start(o) + t]; likewise the bias's."""
    block, part = tl.program_id(0), tl.program_id(2)
    first = block % lap + (block // lap) * LAPS * lap
    out = first + lap * tl.arange(0, LAPS)
    low = (first * step + below) % inputs
    ahead = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    channel = (low + ahead) % inputs
    total, sums = tl.zeros((LAPS, CHANNELS), tl.float32), tl.zeros((LAPS,), tl.float32)
    for at in range(part * share, tl.minimum((part + 1) * share, pixels), PIXELS):
        pixel = at + tl.arange(0, PIXELS)
        inside = pixel < pixels
        above = tl.load(
            grad + _address(pixel, height, width, gb, gh, gw)[None, :] + out[:, None] * gc,
            mask=inside[None, :] & (out < outputs)[:, None], other=0.0,
        )  # fmt: skip
        maps = tl.load(
            x + _address(pixel, height, width, xb, xh, xw)[:, None] + channel[None, :] * xc,
            mask=inside[:, None] & (ahead < cover)[None, :], other=0.0,
        )  # fmt: skip
        total = _product(above, maps, total, PRECISION)
        if BIASED:
            sums += tl.sum(above.to(tl.float32), 1)
    tap = channel[None, :] - ((out * step) % inputs)[:, None]  # (laps, channels)
    tap = tl.where(tap < 0, tap + inputs, tap)
    real = (out < outputs)[:, None] & (ahead < cover)[None, :] & (tap < window)
    tl.store(parts + (part * outputs + out).to(tl.int64)[:, None] * window + tap, total, mask=real)
    if BIASED and tl.program_id(1) == 0:
        tl.store(bias_parts + part * outputs + out, sums, mask=out < outputs)


def lap_of(at: Rolling) -> tuple[int, int, int]:
    """Outputs of a lap, and what `LAPS` laps cover together: from how far behind the first window, how many channels.

    The lap that covers fewest channels; of equal ones the longest up to eight, to write more outputs side by side.

    >>> lap_of(Rolling(512, 512, 4, 0.5)), lap_of(Rolling(512, 512, 4, 0.33))
    ((8, 0, 128), (6, 0, 188))
    """
    found = []
    for lap in range(1, min(LONGEST_LAP, at.out_channels) + 1):
        drift = (lap * at.step + at.in_channels // 2) % at.in_channels - at.in_channels // 2
        cover = min(at.in_channels, at.width + abs(drift) * (LAPS - 1))
        below = min(drift, 0) * (LAPS - 1) % at.in_channels
        found.append((cover * triton.next_power_of_2(lap) / lap, abs(lap - 8), lap, below, cover))
    return min(found)[2:]


def fused_forward(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, overlap: float, stride: int) -> Tensor:
    """What `dense_forward` answers, in its memory format; raises as it does."""
    at = Rolling(weight.shape[1] * groups, len(weight), groups, overlap)
    if x.dim() != 4 or x.shape[1] != at.in_channels:
        wanted = f"(batch, {at.in_channels}, height, width)"
        raise ShapeError(f"Rolling pointwise: the input must be {wanted}, got {tuple(x.shape)}.")
    layout, weight = _format(x), weight.contiguous()
    x = x[:, :, ::stride, ::stride]
    shape = (len(x), at.out_channels, *x.shape[2:])
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    lap, below, cover = lap_of(at)
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    padded = triton.next_power_of_2(lap)
    block = min(PIXELS, 512 // padded)
    if pixels:
        _forward[(triton.cdiv(at.out_channels, lap * LAPS), triton.cdiv(pixels, block))](
            x, weight, bias, y, pixels, *x.shape[2:], at.in_channels, at.out_channels, at.width, at.step, below, cover,
            *x.stride(), *y.stride(), lap=lap, LAP=padded, BIASED=bias is not None, PRECISION=_precision(),
            PIXELS=block, LAPS=LAPS, CHANNELS=CHANNELS, num_stages=3 if padded < 16 else 2,  # shared memory for more
        )  # fmt: skip
    return y


def fused_backward(
    grad: Tensor, x: Tensor, weight: Tensor, groups: int, overlap: float, stride: int, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """What `dense_backward` answers."""
    at, weight = Rolling(x.shape[1], len(weight), groups, overlap), weight.contiguous()
    grad_x = grad_weight = grad_bias = x.new_empty(0)
    if wanted[0]:
        grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=_format(x))
        if stride != 1:
            grad_x.zero_()  # the pixels between those that were read
        _run_to_input(grad, weight, grad_x[:, :, ::stride, ::stride], at)
    if wanted[1] or wanted[2]:
        both = _run_to_weight(grad, x[:, :, ::stride, ::stride], at, wanted[2])
        grad_weight, grad_bias = (
            total.to(x.dtype) if want else x.new_empty(0) for total, want in zip(both, wanted[1:], strict=True)
        )
    return grad_x, grad_weight, grad_bias


def _run_to_input(grad: Tensor, weight: Tensor, grad_x: Tensor, at: Rolling) -> None:
    lap, below, cover = lap_of(at)
    pixels = grad.shape[0] * grad.shape[2] * grad.shape[3]
    grid = (triton.cdiv(at.in_channels, CHANNELS), triton.cdiv(pixels, PIXELS))
    if pixels:
        _to_input[grid](
            grad, weight, grad_x, pixels, *grad.shape[2:], at.in_channels, at.out_channels, at.width, at.step, below,
            cover, *grad.stride(), *grad_x.stride(), lap=lap,
            PRECISION=_precision(), PIXELS=PIXELS, LAPS=LAPS, CHANNELS=CHANNELS,
        )  # fmt: skip


def _run_to_weight(grad: Tensor, x: Tensor, at: Rolling, biased: bool) -> tuple[Tensor, Tensor]:
    """Sums in parts, so that the result does not depend on which program ends first."""
    lap, below, cover = lap_of(at)
    pixels = grad.shape[0] * grad.shape[2] * grad.shape[3]
    share = max(PIXELS, triton.cdiv(triton.cdiv(pixels, SPLITS), PIXELS) * PIXELS)
    splits = triton.cdiv(pixels, share)
    parts = torch.empty(splits, at.out_channels, at.width, dtype=torch.float32, device=x.device)
    bias_parts = torch.empty(splits, at.out_channels, dtype=torch.float32, device=x.device)
    if pixels:
        _to_weight[(lap * triton.cdiv(at.out_channels, lap * LAPS), triton.cdiv(cover, CHANNELS), splits)](
            grad, x, parts, bias_parts, pixels, share, *grad.shape[2:], at.in_channels, at.out_channels, at.width,
            at.step, below, cover, *grad.stride(), *x.stride(), lap=lap, BIASED=biased,
            PRECISION=_precision(), PIXELS=PIXELS, LAPS=LAPS, CHANNELS=CHANNELS,
        )  # fmt: skip
    return parts.sum(0), bias_parts.sum(0)


def _format(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _precision() -> str:
    """For float32: that of torch's own convolutions; the lower types are multiplied as they are."""
    return "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"
