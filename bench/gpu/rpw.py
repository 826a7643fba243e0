"""Rolling pointwise convolution on a GPU against its other forms, GPW and PW, and what memory and arithmetic allow.

    python bench/gpu/rpw.py [--minutes 8.5]

Batch 256; forward in inference, and forward with both gradients. `limit_ms` is the larger of the bytes that must move
(once in, once out) over the copy's measured bandwidth and the multiply-accumulates over those of a measured matrix
product. Wanted: `rolling` within 1.3 of the limit, and slower than no other form. What the result file holds is not
measured again. Writes bench/results/rpw_gpu.json.
"""

import argparse
import json
import sys
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # the forms are those of the CPU's benchmark

from limits import clock, copied, multiplied

from convsmith.bench import compare
from convsmith.environment import environment
from convsmith.files import write_text
from convsmith.kernels.rolling import Rolling
from convsmith.kernels.rolling_triton import fused_forward
from convsmith.latency.interleaved import take_turns
from rpw_forms import FORMATS, Form, forms, subjects

RESULT = Path(__file__).parents[1] / "results" / "rpw_gpu.json"
SHAPES = ((64, 32), (128, 32), (256, 16), (512, 16), (1024, 8), (512, 14), (256, 28))  # channels, side of the map
WINDOWS = ((4, 0.5), (8, 0.5), (2, 0.5), (4, 0.33), (8, 0.33))  # groups, overlap
TYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
LAYOUTS = ("channels_last", "contiguous")
BATCH = 256


def limit(at: Rolling, x: torch.Tensor, backward: bool, bandwidth: float, rate: float) -> float:
    """Seconds: forward reads and writes a map; backward reads both again and writes one, with twice the arithmetic."""
    macs = x.numel() * at.width  # as many outputs as inputs
    moved = (5 if backward else 2) * x.nbytes
    return max(moved / bandwidth, (3 if backward else 1) * macs / rate)


def chosen(at: Rolling, x: torch.Tensor) -> dict[str, Form]:
    """All forms but those whose copies would not fit."""
    known = forms(at)
    if x.nbytes * at.width > 16 * 2**30:
        known.pop("gathered")
    return known


def agrees(at: Rolling, x: torch.Tensor) -> float:
    """Relative error of the Triton kernel against the masked 1x1 in float64, on one image."""
    x = x[:1]
    weight = torch.randn(at.out_channels, at.width, device="cuda").to(x.dtype)
    exact = forms(at)["masked"](x.double(), weight.double())
    return float((fused_forward(x, weight, None, at.groups, at.overlap, 1) - exact).norm() / exact.norm())


def measured(what: dict[str, Any], bandwidth: float, rate: float) -> dict[str, Any]:
    at = Rolling(what["channels"], what["channels"], what["groups"], what["overlap"])
    x = torch.randn(BATCH, what["channels"], what["side"], what["side"], device="cuda")
    x = x.to(TYPES[what["dtype"]], memory_format=FORMATS[what["layout"]])
    runs = subjects(at, x, chosen(at, x), what["backward"])
    found = list(compare(take_turns(runs, 0.1, 1, clock), "eager", BATCH, 0))
    least = 1e3 * limit(at, x, what["backward"], bandwidth, rate)
    times = {
        each.model: {"median_ms": each.median_ms, "q1_ms": each.q1_ms, "q3_ms": each.q3_ms, "ratio": each.ratio,
                     "ratio_low": each.ratio_low, "ratio_high": each.ratio_high} for each in found
    }  # fmt: skip
    over = times["rolling"]["median_ms"] / least
    return {"what": what, "limit_ms": least, "over_limit": over, "error": agrees(at, x), "times": times}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=8.5)
    end = perf_counter() + 60 * parser.parse_args().minutes
    cells = json.loads(RESULT.read_text())["cells"] if RESULT.exists() else []
    done = {json.dumps(cell["what"]) for cell in cells}
    bandwidth, rates = copied(), {name: multiplied(dtype) for name, dtype in TYPES.items()}
    limits = {"bytes a second": bandwidth, "multiply-accumulates a second": rates}
    keys = ("layout", "dtype", "backward", "groups", "overlap", "channels", "side")
    for layout, dtype, backward, windows, shape in product(LAYOUTS, TYPES, (False, True), WINDOWS, SHAPES):
        what = dict(zip(keys, (layout, dtype, backward, *windows, *shape), strict=True))
        if json.dumps(what) in done or perf_counter() > end:
            continue
        cells.append(measured(what, bandwidth, rates[dtype]))
        torch.cuda.empty_cache()
        told = {name: round(time["median_ms"], 3) for name, time in cells[-1]["times"].items()}
        print(what, f"{cells[-1]['over_limit']:.2f} of the limit", told, flush=True)
        kept = {"what": __doc__, "batch": BATCH, "limits": limits, "cells": cells, **environment()}
        write_text(RESULT, json.dumps(kept, indent=1))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
