"""The channel shift against the channel shuffle on the CPU: `OMP_NUM_THREADS=1 python bench/shift.py`.

The shift by half a group as torch.roll, as one copy of all channels, and as `append_shift`, which copies the shifted
channels only, where the producer left room for them; alone, and with the grouped pointwise convolution behind it. One
thread, the process's own time on the CPU, float32 in the contiguous format. Zhong et al. (WACV 2019) state 12.7 times
for a GPU. Writes bench/results/shift.json.
"""

import json
from dataclasses import asdict
from itertools import product
from pathlib import Path
from time import process_time

import torch

from convsmith.bench import compare
from convsmith.environment import environment
from convsmith.files import write_text
from convsmith.latency.interleaved import take_turns
from shift_forms import consumed, subjects

RESULT = Path(__file__).parent / "results" / "shift.json"
SHAPES = ((1, 240, 28), (32, 240, 28), (32, 480, 14), (32, 960, 7))  # images, channels, side of the map
GROUPS = 3


def main() -> None:
    cells = []
    for shape, made in product(SHAPES, (subjects, consumed)):
        images, channels, side = shape
        x = torch.randn(images, channels, side, side)
        with torch.inference_mode():
            found = list(compare(take_turns(made(x, GROUPS), 0.2, 1, process_time), "eager", images, 0))
        cells.append({"images": images, "channels": channels, "side": side, "behind": made is consumed,
                      "times": [asdict(each) for each in found]})  # fmt: skip
        print(shape, made.__name__, {f.model: f"{f.median_ms:.3f} ({f.ratio:.3f})" for f in found}, flush=True)
    write_text(RESULT, json.dumps({"what": __doc__, "groups": GROUPS, "cells": cells, **environment()}, indent=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    main()
