"""The channel shift against the channel shuffle on a GPU: `python bench/gpu/shift.py`.

As bench/shift.py, with large batches, in float32 and bfloat16. Zhong et al. (WACV 2019) state that the shift is 12.7
times as fast. Writes bench/results/shift_gpu.json.
"""

import json
import sys
from dataclasses import asdict
from itertools import product
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # the forms are those of the CPU's benchmark

from limits import clock, copied

from convsmith.bench import compare
from convsmith.environment import environment
from convsmith.files import write_text
from convsmith.latency.interleaved import take_turns
from shift_forms import consumed, subjects

RESULT = Path(__file__).parents[1] / "results" / "shift_gpu.json"
SHAPES = ((1, 240, 28), (256, 240, 28), (256, 480, 14), (256, 960, 7))  # images, channels, side of the map
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
GROUPS = (3, 8)


def main() -> None:
    cells, bandwidth = [], copied()
    for shape, dtype, groups, made in product(SHAPES, TYPES, GROUPS, (subjects, consumed)):
        images, channels, side = shape
        x = torch.randn(images, channels, side, side, device="cuda").to(TYPES[dtype])
        with torch.inference_mode():
            found = list(compare(take_turns(made(x, groups), 0.2, 1, clock), "eager", images, 0))
        cells.append({"images": images, "channels": channels, "side": side, "dtype": dtype, "groups": groups,
                      "behind": made is consumed, "copy_ms": 2e3 * x.nbytes / bandwidth,
                      "times": [asdict(each) for each in found]})  # fmt: skip
        told = {f.model: f"{f.median_ms:.4f} ({f.ratio:.3f})" for f in found}
        print(shape, dtype, groups, made.__name__, told, flush=True)
        kept = {"what": __doc__, "bytes a second": bandwidth, "cells": cells, **environment()}
        write_text(RESULT, json.dumps(kept, indent=1))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
