"""Is a separable net better when trained as standard convolutions and decomposed? CIFAR-10, one net, several seeds.

    python bench/gpu/expand.py --data cifar10:PATH --net shufflenetv2-1.0 [--epochs 24] [--finetune 12] [--seeds 0,1,2]

The claim is of He et al., "Depth-wise Decomposition for Accelerating Separable Convolutions in Efficient CNNs" (2019).
For every seed a baseline is trained for epochs + finetune, the expanded net for epochs, and the decomposed one, of the
baseline's cost, for finetune; `--teacher` lets that one learn from the expanded net too. Each seed's result is written
at once to bench/gpu/results/expand-NET[-LABEL].json, and what is there for the same settings is not done again; a seed
that was stopped goes on in its folder under --work.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter
from typing import Any

from convsmith.environment import environment
from convsmith.errors import ConvsmithError
from convsmith.files import write_text
from convsmith.optimize import BASELINE, DECOMPOSED, EXPANDED, Expansion, Watch, expansion
from convsmith.report.records import read_net

RESULTS = Path(__file__).parent / "results"
NETS = (BASELINE, EXPANDED, DECOMPOSED)


def main() -> None:
    """Do the seeds that the result file lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--net", required=True, help="shufflenetv2-0.5, shufflenetv2-1.0, mobilenet, or any other")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--finetune", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=512)  # small nets wait for launches, not for the GPU
    parser.add_argument("--lr", type=float, default=0.2)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--finetune-lr", type=float, help="default: that of --lr")
    parser.add_argument("--teacher", action="store_true")
    parser.add_argument("--label", default="", help="what tells this result file from others of the net")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--device")
    parser.add_argument("--work", type=Path, default=Path("runs") / "expand")
    told = parser.parse_args()
    name = "-".join(filter(None, [told.net.replace(":", "-"), told.label]))
    result = RESULTS / f"expand-{name}.json"
    settings = [
        Expansion(
            told.net, told.data, epochs=told.epochs, finetune=told.finetune, lr=told.lr, batch_size=told.batch_size,
            finetune_lr=told.finetune_lr, images=told.images, teacher=told.teacher, seed=int(seed),
        )
        for seed in told.seeds.split(",")
    ]  # fmt: skip
    common = {key: value for key, value in asdict(settings[0]).items() if key != "seed"}
    common["data"] = told.data.partition(":")[0]
    seeds = read(result, common)
    for each in settings:
        if str(each.seed) not in seeds:
            seeds[str(each.seed)] = measured(each, told.work / f"{name}-{each.seed}", told.device)
            record = {"what": __doc__, "settings": common, "summary": summary(seeds), "seeds": seeds} | environment()
            write_text(result, json.dumps(record, indent=1) + "\n")
    print(json.dumps(summary(seeds), indent=1))


def read(result: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The seeds that are done; raises ConvsmithError where they were done otherwise."""
    if not result.is_file():
        return {}
    told = json.loads(result.read_text())
    if told["settings"] != settings:
        raise ConvsmithError(f"{result}: is of other settings, {told['settings']}; move it away.")
    seeds: dict[str, Any] = told["seeds"]
    return seeds


def measured(settings: Expansion, work: Path, device: str | None) -> dict[str, Any]:
    """One seed: costs, the test accuracy after every step, and seconds, of a resumed run those of its last part."""
    began = perf_counter()
    expansion(settings, work, watch=Watch(say, lambda net, total, epoch: say(f"{net} {epoch}")), device=device)
    told: dict[str, Any] = {"seconds": round(perf_counter() - began, 1)}
    for name in NETS:
        net = read_net(work / name)
        assert net.scores is not None
        told[name] = {"params": net.scores.params, "macs": net.scores.macs} | {
            each.when: each.top1 for each in net.evaluations
        }
    return told


def summary(seeds: dict[str, Any]) -> dict[str, Any]:
    """Mean and deviation over seeds of the last accuracies, and of what the decomposed net has over the baseline."""
    last = {name: [list(seed[name].values())[-1] for seed in seeds.values()] for name in NETS}
    last["gain"] = [new - old for new, old in zip(last[DECOMPOSED], last[BASELINE], strict=True)]
    return {
        name: {"mean": mean(values), "deviation": stdev(values) if len(values) > 1 else None, "seeds": len(values)}
        for name, values in last.items()
    }


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
