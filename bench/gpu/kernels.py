"""Kernels on a device against what memory and arithmetic allow: rolling pointwise, and the channel shift."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # the forms are those of the CPU's benchmarks

from convsmith.bench import compare
from convsmith.kernels.rolling import Rolling
from convsmith.latency.interleaved import take_turns
from loop import Lab
from rpw_forms import FORMATS, Form, forms, subjects
from shift_forms import consumed
from shift_forms import subjects as shifts

SHAPES = ((64, 32), (128, 32), (256, 16), (512, 16), (1024, 8), (512, 14), (256, 28))  # channels, side of the map
WINDOWS = ((4, 0.5), (8, 0.5))  # groups, overlap
TYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
KINDS = (("bfloat16", "channels_last"), ("float32", "contiguous"))
SHIFTED = ((1, 240, 28), (256, 240, 28), (256, 480, 14), (256, 960, 7))  # images, channels, side of the map
LARGEST = 8 * 2**30  # bytes that a form may copy
What = dict[str, Any]


def rolling_cells(batch: int, shapes: tuple[tuple[int, int], ...] = SHAPES) -> Iterator[What]:
    """What rolling pointwise is measured on, the decisive first."""
    for (dtype, layout), (groups, overlap), (channels, side), backward in product(
        KINDS, WINDOWS, shapes, (False, True)
    ):
        yield {
            "dtype": dtype, "layout": layout, "groups": groups, "overlap": overlap, "channels": channels,
            "side": side, "backward": backward, "batch": batch,
        }  # fmt: skip


def shift_cells(shapes: tuple[tuple[int, int, int], ...] = SHIFTED) -> Iterator[What]:
    """What the shift is measured on: alone, and with the grouped pointwise convolution behind it."""
    for (images, channels, side), dtype, groups, behind in product(shapes, TYPES, (3, 8), (False, True)):
        yield {
            "images": images, "channels": channels, "side": side, "dtype": dtype, "groups": groups, "behind": behind,
        }  # fmt: skip


def rolling(lab: Lab, what: What, seconds: float) -> dict[str, Any]:
    """Times of all forms, and how far `rolling` is from the limit of memory and arithmetic.

    The limit is the larger of the bytes that must move (once in, once out) over the bandwidth of a copy and the
    multiply-accumulates over those of a matrix product, both measured here.
    """
    at = Rolling(what["channels"], what["channels"], what["groups"], what["overlap"])
    x = torch.randn(what["batch"], what["channels"], what["side"], what["side"], device=lab.device)
    x = x.to(TYPES[what["dtype"]], memory_format=FORMATS[what["layout"]])
    times = timed(lab, subjects(at, x, chosen(at, x), what["backward"]), what["batch"], seconds)
    least = 1e3 * limit(lab, at, x, what["backward"])
    return {"limit_ms": least, "over_limit": times["rolling"]["median_ms"] / least, "times": times}


def chosen(at: Rolling, x: torch.Tensor) -> dict[str, Form]:
    """All forms but those whose copies are too large."""
    known = forms(at)
    if x.nbytes * at.width > LARGEST:
        known.pop("gathered")
    return known


def shift(lab: Lab, what: What, seconds: float) -> dict[str, Any]:
    """Times of the shuffle and of the shift in its forms (Zhong et al., WACV 2019, state 12.7 times as fast)."""
    x = torch.randn(what["images"], what["channels"], what["side"], what["side"], device=lab.device)
    x = x.to(TYPES[what["dtype"]])
    made: Callable[..., Any] = consumed if what["behind"] else shifts
    with torch.inference_mode():
        times = timed(lab, made(x, what["groups"]), what["images"], seconds)
    return {"copy_ms": 2e3 * x.nbytes / copied(lab), "times": times}


def timed(lab: Lab, runs: Any, batch: int, seconds: float) -> dict[str, dict[str, Any]]:
    """Milliseconds and ratios to the first of the runs, which take turns."""
    found = compare(take_turns(runs, seconds, 1, lab.clock), "eager", batch, 0)
    drop = ("model", "runtime", "batch", "verdict")
    return {one.model: {key: value for key, value in asdict(one).items() if key not in drop} for one in found}


def limit(lab: Lab, at: Rolling, x: torch.Tensor, backward: bool) -> float:
    """Seconds: forward reads and writes a map; backward reads both again and writes one, with twice the arithmetic."""
    macs = x.numel() * at.width  # as many outputs as inputs
    moved = (5 if backward else 2) * x.nbytes
    return max(moved / copied(lab), (3 if backward else 1) * macs / multiplied(lab, x.dtype))


def copied(lab: Lab) -> float:
    """Bytes a second, read and written each counted, of a copy too large for any cache."""
    source = torch.randn(2**28 if lab.device.type == "cuda" else 2**22, device=lab.device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / median(lab, lambda: target.copy_(source))


def multiplied(lab: Lab, dtype: torch.dtype) -> float:
    """Multiply-accumulates a second of a large matrix product; of float32 in tf32, as convolutions are by default."""
    side = 8192 if lab.device.type == "cuda" else 256
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, True
    left, right = (torch.randn(side, side, device=lab.device).to(dtype) for _ in range(2))
    seconds = median(lab, lambda: left @ right)
    torch.backends.cuda.matmul.allow_tf32 = before
    return side**3 / seconds


def median(lab: Lab, run: Callable[[], object]) -> float:
    """Seconds of one run."""
    (times,) = take_turns({"run": run}, 0.05, 1, lab.clock).values()
    return float(sorted(times)[len(times) // 2])
