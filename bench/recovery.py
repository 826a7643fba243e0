"""What a teacher and the learning rate are worth to a decomposed net: `python bench/recovery.py CIFAR10 WEIGHTS`.

ResNet-20 with every 3x3 convolution but the first as one rank-1 `dw-pw`, weights carried by svd, 2 epochs, one seed;
CIFAR10 is a data reference, WEIGHTS a state dict. Writes bench/results/recovery.json.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

import convsmith as cs
from convsmith.environment import environment
from convsmith.files import write_text
from convsmith.load import load_with_data
from convsmith.train import recipe_for

RESULT = Path(__file__).parent / "results" / "recovery.json"
VARIANTS = ((0.01, False), (0.05, False), (0.01, True), (0.05, True), (0.1, True))  # learning rate, teacher


def main() -> None:
    base, data = load_with_data("resnet20", sys.argv[1], weights=Path(sys.argv[2]))
    graph = cs.capture(base.model, torch.zeros(1, *data.shape), name="resnet20")
    plan = cs.decompose(graph, block="dw-pw")
    told = {"what": __doc__, "baseline": asdict(cs.evaluate(base.model, data.test)), "plan": asdict(plan.new)}
    told["before"] = asdict(cs.evaluate(cs.apply(base.model, plan), data.test))
    told["recovered"] = []
    for lr, taught in VARIANTS:
        new, recipe = cs.apply(base.model, plan), recipe_for(data, epochs=2, lr=lr)
        history = cs.train(new, data, recipe, teacher=base.model if taught else None)
        told["recovered"].append({"lr": lr, "teacher": taught, "top1": [epoch.test_top1 for epoch in history.epochs]})
        print(told["recovered"][-1], flush=True)
        write_text(RESULT, json.dumps({**told, "recipe": asdict(recipe), **environment()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
