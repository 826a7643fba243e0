"""Nets trained on the JPEG copies, which measurements start from: `python bench/base.py NET --data cifar10:PATH`.

NET is a name of the zoo (small form). With `--weights FILE` a trained net is trained on, without it a fresh one from
its start; one recipe, one cycle. `--work DIR` holds a checkpoint after every epoch: the same call goes on where it was
stopped. At the end bench/weights/NET.safetensors and NET.json (recipe, accuracies, versions, hardware) are written.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

import convsmith as cs
from convsmith.environment import environment
from convsmith.files import whole, write_text
from convsmith.load import load_with_data
from convsmith.train import digest, recipe_for

WEIGHTS = Path(__file__).parent / "weights"


def main() -> None:
    """Train, or go on training, and keep the weights with their record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net")
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--lr", type=float, default=None, help="largest rate (default: .02 with weights, .05 without)")
    parser.add_argument("--device", default=None)
    told = parser.parse_args()
    torch.manual_seed(0)
    loaded, data = load_with_data(told.net, told.data, weights=told.weights)
    lr = told.lr or (0.02 if told.weights else 0.05)
    recipe = recipe_for(data, epochs=told.epochs, lr=lr, device=told.device)
    before = asdict(cs.evaluate(loaded.model, data.test, device=told.device)) if told.weights else None
    history = cs.train(
        loaded.model, data, recipe, out=told.work / told.net, start=digest(loaded.model),
        progress=lambda epoch: print(epoch, flush=True),
    )  # fmt: skip
    WEIGHTS.mkdir(exist_ok=True)
    with whole(WEIGHTS / f"{told.net}.safetensors") as draft:
        save_file({key: tensor.contiguous() for key, tensor in loaded.model.state_dict().items()}, draft)
    record = {
        "what": __doc__, "net": told.net, "from": told.weights.name if told.weights else None, "before": before,
        "recipe": asdict(recipe), "epochs": [asdict(epoch) for epoch in history.epochs],
        "final": asdict(history.final), "mean": data.mean, "std": data.std, **environment(),
    }  # fmt: skip
    write_text(WEIGHTS / f"{told.net}.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
