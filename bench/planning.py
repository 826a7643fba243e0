"""Processor time of planning and fitting trained nets: `python bench/planning.py --data cifar10:PATH NET=WEIGHTS ..`.

Each NET of the zoo with its weights is planned by 512 images to half of its MACs, and the plan is applied, in a process
of its own on one thread. Processor seconds of the steps, the peak of memory, and how often each form was chosen go to
bench/results/planning.json; nets that are not asked for stay as they are there.
"""

import argparse
import json
import resource
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch

import convsmith as cs
from convsmith.environment import environment
from convsmith.files import write_text
from convsmith.load import load_with_data

RESULT = Path(__file__).parent / "results" / "planning.json"
SCALE = 1024**2 if sys.platform != "darwin" else 1024**3  # getrusage tells kilobytes on Linux, bytes on macOS


def measured(net: str, weights: Path, data: str, limit: float) -> dict[str, Any]:
    """Seconds and gigabytes of one net."""
    torch.set_num_threads(1)
    loaded, split = load_with_data(net, data, weights=weights)
    graph = cs.capture(loaded.model, torch.zeros(1, *split.test.shape))
    before, clock = process_time(), perf_counter()
    plan = cs.decompose(graph, model=loaded.model, data=split, max_macs=limit)
    planned = process_time()
    cs.apply(loaded.model, plan, data=split)
    return {
        "planning": round(planned - before, 1), "fitting": round(process_time() - planned, 1),
        "clock": round(perf_counter() - clock, 1), "limit": limit, "images": 512,
        "peak GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / SCALE, 2),
        "forms": dict(Counter(edit.block.partition(":")[0] for edit in plan.edits)),
    }  # fmt: skip


def main() -> None:
    """Measure each, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="+", help="NET=WEIGHTS")
    parser.add_argument("--data", required=True)
    parser.add_argument("--max-macs", type=float, default=0.5)
    told = parser.parse_args()
    rows = json.loads(RESULT.read_text())["nets"] if RESULT.exists() else {}
    for each in told.nets:
        net, _, weights = each.partition("=")
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            rows[net] = pool.submit(measured, net, Path(weights), told.data, told.max_macs).result()
        print(net, rows[net], flush=True)
        write_text(RESULT, json.dumps({"what": __doc__, "nets": rows, **environment()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
