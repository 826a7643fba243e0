"""Rolling pointwise convolution on the CPU against its other forms, and GPW and PW of equal width.

    OMP_NUM_THREADS=1 python bench/rpw.py [--seconds 0.1]

Forward in inference, and forward with both gradients, batch 4, one thread; times are the process's own on the CPU,
which other processes do not lengthen, but for the caches that they share. The forms of a cell run in turn, and each
cell holds the ratio of medians to `grouped` with its 95 % bounds. `banded` and `masked` are the two ways that the
operator `rolling` chooses from, measured on every shape, which is where the costs in its code come from. The stacked
form and the pointwise convolution are measured in float32 at 4 groups and overlap .5 only, the gathered one there and
with 64 channels: it takes 20 to 80 times as long. What the result file
holds already is not measured again. Writes bench/results/rpw.json and
the tables of docs/blocks.md.
"""

import argparse
import json
from dataclasses import asdict
from itertools import product
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import torch
from torch import Tensor

from convsmith.bench import compare
from convsmith.environment import environment
from convsmith.files import write_text
from convsmith.kernels.rolling import Rolling
from convsmith.kernels.rolling_banded import Band, banded_backward, banded_forward, cheapest, fastest, idle_rows
from convsmith.latency.interleaved import take_turns
from rpw_forms import FORMATS, Form, forms, subjects

RESULT = Path(__file__).parent / "results" / "rpw.json"
PAGE = Path(__file__).parent.parent / "docs" / "blocks.md"
SHAPES = ((64, 32), (256, 14), (512, 14), (128, 16), (512, 4), (1024, 7))  # channels, side of the map
WINDOWS = ((4, 0.5), (4, 0.33), (8, 0.5))  # groups, overlap
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BATCH = 4


AIM = 1.2  # times a grouped pointwise convolution


class Banded(torch.autograd.Function):
    """The banded way, whether it pays or not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, band: Band) -> Tensor:  # noqa: D102
        ctx.save_for_backward(x, weight)
        ctx.band = band
        return banded_forward(x, weight, None, band)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        return *banded_backward(grad, *ctx.saved_tensors, ctx.band, (True, True, False))[:2], None


def chosen(at: Rolling, x: Tensor) -> dict[str, Form]:
    """The forms to measure in a cell, the one that others are compared with first."""
    band = cheapest(at.in_channels, at.out_channels, at.groups, at.overlap, idle_rows(x))[1]
    known = forms(at) | {"banded": lambda x, w: Banded.apply(x, w, band)}
    told = ["grouped", "rolling", "banded", "masked"]
    if x.dtype == torch.float32 and (at.groups, at.overlap) == WINDOWS[0]:
        told += ["pointwise", "stacked"] + ["gathered"] * (at.in_channels == 64)
    return {name: known[name] for name in told if name in known}


def keep_freed_pages() -> None:
    """Free one large tensor, as any net has: glibc then keeps the pages of smaller ones, which to get anew is slow."""
    torch.empty(2**25 - 2**16, dtype=torch.uint8)


def write_page(cells: list[dict[str, Any]]) -> None:
    """Renew the page's tables: rolling over grouped in float32, contiguous, and how many cells meet the aim."""
    ratios: dict[tuple[Any, ...], list[str]] = {}
    kinds: dict[tuple[Any, ...], list[float]] = {}
    for cell in cells:
        what, ratio = cell["what"], cell["times"]["rolling"]["ratio"]
        if (what["dtype"], what["layout"]) == ("float32", "contiguous"):
            row = (what["channels"], what["side"], what["groups"], what["overlap"])
            ratios.setdefault(row, []).append(f"{ratio:.2f}")
        kinds.setdefault((what["overlap"], what["layout"], what["dtype"]), []).append(ratio)
    rows = [[*map(str, row), *found] for row, found in sorted(ratios.items()) if len(found) == 2]
    replace("rpw", [["channels", "side", "g", "o", "forward", "with gradients"], ["---:"] * 6, *rows])
    rows = []
    for kind, found in kinds.items():
        met = f"{sum(each <= AIM for each in found)} of {len(found)}"
        rows.append([*map(str, kind), met, f"{median(found):.2f}", f"{max(found):.2f}"])
    heads = ["o", "format", "type", f"at most {AIM}", "median", "most"]
    replace("rpw kinds", [heads, ["---:", "---", "---", "---:", "---:", "---:"], *rows])


def replace(name: str, lines: list[list[str]]) -> None:
    """Put a table between the page's marks of that name."""
    rows = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    before, _, rest = PAGE.read_text().partition(f"<!-- {name} -->\n")
    write_text(PAGE, f"{before}<!-- {name} -->\n{rows}{rest[rest.index(f'<!-- /{name} -->') :]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.1, help="of readings, for each form of a cell")
    told = parser.parse_args()
    cells = json.loads(RESULT.read_text())["cells"] if RESULT.exists() else []
    done = {json.dumps(cell["what"]) for cell in cells}
    for (groups, overlap), layout, dtype, (channels, side), backward in product(
        WINDOWS, FORMATS, TYPES, SHAPES, (False, True)
    ):
        what = {"channels": channels, "side": side, "groups": groups, "overlap": overlap, "dtype": dtype,
                "layout": layout, "backward": backward}  # fmt: skip
        if json.dumps(what) in done:
            continue
        at = Rolling(channels, channels, groups, overlap)
        x = torch.randn(BATCH, channels, side, side).to(TYPES[dtype], memory_format=FORMATS[layout])
        runs = subjects(at, x, chosen(at, x), backward)
        found = compare(take_turns(runs, told.seconds, 1, process_time), "eager", BATCH, 0)
        times = {each.model: {k: v for k, v in asdict(each).items() if k not in ("model", "runtime", "batch")}
                 for each in found}  # fmt: skip
        band = fastest(x, x.new_empty(channels, at.width), groups, overlap, 1)
        cells.append({"what": what, "together": band and band.together, "times": times})
        print(
            what, {name: f"{each['median_ms']:.2f} ({each['ratio']:.2f})" for name, each in times.items()}, flush=True
        )
        write_text(RESULT, json.dumps({"what": __doc__, "batch": BATCH, "cells": cells, **environment()}, indent=1))
    write_page(cells)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_pages()
    main()
