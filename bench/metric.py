"""The metric against trained nets: `python bench/metric.py --table FILE [--raw FILE] [--workers 2]`.

FILE is NAS-Bench-Macro's `nas-bench-macro_cifar10.json`. Each of its 6,561 nets is built from the zoo's records,
captured and scored; parameters and MACs must equal the table's. Then the RegNets of torchvision, whose accuracies come
with it, and what the organizer makes of nets by gain and by value. `--raw` keeps the scores of all nets, and reads them
where it is there. `--forward` nets are scored by one forward pass as well (Mellor et al., "Neural Architecture Search
without Training", ICML 2021). Writes bench/results/metric.json and the tables of docs/metric.md.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import scipy
import torch
from scipy.stats import rankdata

import convsmith as cs
from convsmith.environment import environment
from convsmith.files import write_text
from convsmith.score.growth import POWER, published_growth
from convsmith.structure.stages import effective_kernel, find_stages
from macro_nets import Trained, Values, macro_net, read_table
from metric_limits import optima, regnets
from metric_page import write_tables
from naswot import IMAGES, naswot_of
from ranks_of_nets import Places, Ranked, kendall

RESULT = Path(__file__).parent / "results" / "metric.json"
ALPHA = 3.0
ALPHAS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 20.0)
POWERS = (*(n / 20 for n in range(1, 11)), 0.75, 1.0)
BINS = 20
SEEDS = (0, 1, 2, 3, 4)
SCORES = ("parameters", "MACs", "blocks", "gain", "exact gain", "exact value", "value")

Raw = dict[str, Any]


def main() -> None:
    """Score the nets where no file holds their scores, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--raw", type=Path)
    parser.add_argument("--forward", type=int, default=300, metavar="NETS")
    parser.add_argument("--workers", type=int, default=1)
    told = parser.parse_args()
    torch.set_num_threads(1)
    trained = read_table(told.table)
    raw = kept(told.raw) or in_turn(scored, trained.names, told.workers)
    if told.raw and not told.raw.exists():
        write_text(told.raw, json.dumps(raw))
    drawn = np.random.default_rng(SEEDS[0]).choice(len(raw), told.forward, replace=False)
    passed = in_turn(partial(naswot_of, seed=SEEDS[0]), [trained.names[place] for place in drawn], told.workers)
    found = macro(trained, raw, drawn, np.array(passed)) | {"regnets": regnets(), "optima": optima()}
    versions = environment()
    versions["versions"]["scipy"] = scipy.__version__
    found = {"what": __doc__, "seeds": SEEDS} | found | versions
    write_text(RESULT, json.dumps(found, indent=1) + "\n")
    write_tables(found)


def kept(path: Path | None) -> list[Raw]:
    """The scores of an earlier run."""
    return json.loads(path.read_text()) if path is not None and path.exists() else []


def in_turn(score: Callable[[str], Any], names: Sequence[str], workers: int) -> list[Any]:
    """What every net scores, in order."""
    found = []
    with get_context("fork").Pool(workers, partial(torch.set_num_threads, 1)) as pool:
        for each in pool.imap(score, names, chunksize=20):
            found.append(each)
            if len(found) % 100 == 0:
                print(f"{len(found)} of {len(names)} nets", flush=True)
    return found


def scored(name: str) -> Raw:
    """One net: its costs, gains by both conventions, its stages, and the milliseconds that each step took."""
    clock = Clock()
    net = macro_net(name)
    clock.lap("build")
    graph = cs.capture(net, torch.zeros(1, 3, 32, 32, device="meta"), name=name)
    clock.lap("capture")
    scores = cs.score(graph)
    clock.lap("score")
    exact = cs.score(graph, convention="exact")
    clock.lap("exact score")
    stages = [
        {"kernels": [effective_kernel(node) for node in stage.counted], "map": stage.map}
        for stage in find_stages(graph, graph.reaches()).stages
    ]
    return {
        "params": scores.params, "macs": scores.macs, "gain": scores.gain, "value": scores.value,
        "exact gain": exact.gain, "exact value": exact.value, "stages": stages, "ms": clock.laps,
        "exact gains": [layer.gain for layer in exact.layers if layer.gain],
    }  # fmt: skip


class Clock:
    """Milliseconds of wall and processor time between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, tuple[float, float]] = {}
        self._at = perf_counter(), process_time()

    def lap(self, name: str) -> None:
        """What has passed since the last one goes under this name."""
        now = perf_counter(), process_time()
        self.laps[name] = 1e3 * (now[0] - self._at[0]), 1e3 * (now[1] - self._at[1])
        self._at = perf_counter(), process_time()


def macro(trained: Trained, raw: Sequence[Raw], drawn: Places, passed: Values) -> dict[str, Any]:
    """What the scores say of the nets of NAS-Bench-Macro; `passed` is what one forward pass says of those drawn."""
    macs = np.array([each["macs"] for each in raw], float)
    blocks = np.array([sum(digit != "0" for digit in name) for name in trained.names])
    ranked = Ranked(trained.accuracy, macs, blocks, BINS)
    own = {
        name: np.array([each[name] for each in raw], float) for name in ("gain", "value", "exact gain", "exact value")
    }
    own |= {
        "parameters": np.array([each["params"] for each in raw], float),
        "MACs": macs,
        "blocks": blocks.astype(float),
    }
    gains = {alpha: [gains_of(each, alpha) for each in raw] for alpha in ALPHAS}
    check(trained, raw, gains[ALPHA])
    sums = {alpha: {power: summed(gains[alpha], power) for power in POWERS} for alpha in ALPHAS}
    exact = {power: summed([each["exact gains"] for each in raw], power) for power in POWERS}
    return {
        "table": {"nets": len(raw), "sha256": trained.sha256, "params equal": True, "MACs equal": True},
        "ms": {step: spread([each["ms"][step] for each in raw]) for step in raw[0]["ms"]},
        "bins": BINS,
        "scores": {name: ranked.told(own[name]) for name in SCORES},
        "random": {"regret": ranked.regret(np.zeros(len(raw)))},
        "by blocks": {name: ranked.by_blocks(own[name]) for name in ("MACs", "gain", "value")},
        "nets by blocks": {str(n): int((blocks == n).sum()) for n in range(9)},
        "run against run": [kendall(trained.runs[:, i], trained.runs[:, j]) for i, j in ((0, 1), (0, 2), (1, 2))],
        "powers": {str(power): ranked.told(sums[ALPHA][power]) for power in POWERS},
        "halves": [judged(ranked, {ALPHA: sums[ALPHA]}, seed) for seed in SEEDS],
        "halves, alpha too": [judged(ranked, sums, seed) for seed in SEEDS],
        "exact powers": {str(power): ranked.told(exact[power]) for power in POWERS},
        "halves, exact": [judged(ranked, {ALPHA: exact}, seed) for seed in SEEDS],
        "forward pass": one_pass(ranked, own, drawn, passed),
    }  # fmt: skip


def gains_of(net: Raw, alpha: float) -> list[float]:
    """The published gains of all counted convolutions under another alpha."""
    return [
        step.gain
        for stage in net["stages"]
        for step in published_growth([tuple(k) for k in stage["kernels"]], tuple(stage["map"]), alpha=alpha)
    ]


def check(trained: Trained, raw: Sequence[Raw], gains: Sequence[Sequence[float]]) -> None:
    """Sizes must be the table's, and the gains worked out anew those that were scored."""
    sizes = [(each["params"], each["macs"]) for each in raw]
    if sizes != list(zip(trained.params, trained.flops, strict=True)):
        raise SystemExit("parameters or MACs differ from the table's")
    if not np.allclose([sum(own) for own in gains], [each["gain"] for each in raw]):
        raise SystemExit("gains worked out anew differ from those scored")


def summed(gains: Sequence[Sequence[float]], power: float) -> Values:
    return np.array([sum(gain**power for gain in own) for own in gains])


def spread(laps: Sequence[Sequence[float]]) -> dict[str, float]:
    wall, cpu = zip(*laps, strict=True)
    low, middle, high = statistics.quantiles(wall, n=4)
    told = {"median": middle, "quartile 1": low, "quartile 3": high, "processor median": statistics.median(cpu)}
    return {name: round(value, 2) for name, value in told.items()}


def judged(ranked: Ranked, sums: Mapping[float, Mapping[float, Values]], seed: int) -> dict[str, Any]:
    """Alpha and power of most Kendall on a random half, and how they and the product's own rank the other half."""
    order = np.random.default_rng(seed).permutation(len(ranked.accuracy))
    half, other = np.array_split(order, 2)
    accuracy = ranked.accuracy[half]
    fits = {(a, p): kendall(sums[a][p][half], accuracy) for a in sums for p in sums[a]}
    alpha, power = max(fits, key=fits.__getitem__)
    rest = ranked.part(other)
    return {
        "seed": seed, "alpha": alpha, "power": power, "kendall fitted": fits[alpha, power],
        "other half": rest.told(sums[alpha][power][other]),
        "other half, the product's": rest.told(sums[ALPHA][POWER][other]),
    }  # fmt: skip


def one_pass(ranked: Ranked, own: Mapping[str, Values], drawn: Places, passed: Values) -> dict[str, Any]:
    """On nets drawn at random: a score of one forward pass, the value, and the sum of both ranks."""
    told = {"MACs": own["MACs"][drawn], "NASWOT": passed}
    for name in ("value", "exact value"):
        told |= {name: own[name][drawn], f"{name} and NASWOT": rankdata(own[name][drawn]) + rankdata(passed)}
    ranks = {name: kendall(score, ranked.accuracy[drawn]) for name, score in told.items()}
    return {"nets": len(drawn), "images": IMAGES, "kendall": ranks}


if __name__ == "__main__":
    main()
