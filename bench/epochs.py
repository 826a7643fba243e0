"""What training adds to decomposed CIFAR ResNets: accuracy before it, with norms estimated anew, and after some epochs.

    python bench/epochs.py --data cifar10:PATH --weights FOLDER [--nets resnet20] [--only TEXT] [--minutes 8.5]

The points are those of bench/decompose.py, of which `--only` takes those whose names hold a text (several are split at
|). Each is trained for `--epochs` epochs with the original as its teacher, a run of its own for each number, by one
recipe. Every run is written at once to bench/results/epochs.json, and what is there is not done again; none begins
once `--minutes` are over. On a GPU with --device cuda.
"""

import json
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

import convsmith as cs
from convsmith.calibration.calibrate import take_images
from convsmith.environment import environment
from convsmith.files import write_text
from convsmith.train import recipe_for, reestimate_norms
from decompose import IMAGES, WHO, arguments, jobs, macs_of, trained_net

RESULT = Path(__file__).parent / "results" / "epochs.json"


def main() -> None:
    """Do what the result file lacks, point after point, until the time is over."""
    parser = arguments(__doc__)
    parser.add_argument("--only", default="", help="points whose names hold one of these texts, split at |")
    parser.add_argument("--epochs", type=int, nargs="*", default=[1, 3])
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--device", default=None)
    told = parser.parse_args()
    end = perf_counter() + 60 * told.minutes
    points = json.loads(RESULT.read_text())["points"] if RESULT.exists() else {}
    data = cs.load_data(told.data)
    recipe = recipe_for(data, lr=told.lr, device=told.device)
    wanted = [job for net in told.nets.split(",") for job in jobs(net)]
    for job in wanted:
        name = f"{job.key} lr {told.lr}"
        left = [n for n in told.epochs if str(n) not in points.get(name, {}).get("epochs", {})]
        if not left or not any(text in job.key for text in told.only.split("|")):
            continue
        if perf_counter() > end:
            return
        original, macs, _ = trained_net(job.net, told.weights)
        new = WHO[job.who](original, job, take_images(data, IMAGES, job.draw)[:]).eval()
        before = {"lr": told.lr} | _before(new, original, data, macs, told.device)
        point = points.setdefault(name, asdict(job) | before | {"epochs": {}})
        for epochs in left:
            if perf_counter() > end:
                return
            trained = deepcopy(new)
            history = cs.train(trained, data, replace(recipe, epochs=epochs), teacher=original)
            point["epochs"][str(epochs)] = history.epochs[-1].test_top1
            kept = {"what": __doc__, "recipe": asdict(recipe), "points": points, **environment()}
            write_text(RESULT, json.dumps(kept, indent=1))
            print(f"{name}: {point}", flush=True)


def _before(new: nn.Module, model: nn.Module, data: Any, macs: int, device: str | None) -> dict[str, float]:
    """MACs as a share, and top-1 as it is and with norms estimated anew where held-out images agree."""
    again = deepcopy(new)
    kept = reestimate_norms(again, data, teacher=model).kept
    top1 = cs.evaluate(new, data.test, device=device).top1
    return {
        "macs": macs_of(new) / macs, "top1": top1,
        "top1_norms": cs.evaluate(again, data.test, device=device).top1 if kept else top1,
    }  # fmt: skip


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
