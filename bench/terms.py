"""How far the terms of `cp` cancel each other, with and without the bound on them.

    python bench/terms.py --data cifar10:PATH NET=WEIGHTS

Every 3x3 convolution of a trained net of the zoo but the first is fitted to 512 images with as many terms as outputs.
For each: the sum of the terms' norms over the norm of the weight, the sum of their energies over that of the responses,
and the relative error of the responses. Writes bench/results/terms.json.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch
from torch import Tensor

import convsmith as cs
from convsmith.algebra import FitRequest, ThreeWay, fit
from convsmith.algebra.second_moments import Statistics
from convsmith.calibration.calibrate import calibrate, take_images
from convsmith.environment import environment
from convsmith.files import write_text
from convsmith.load import load_with_data

RESULT = Path(__file__).parent / "results" / "terms.json"


def told(weight: Tensor, statistics: Statistics) -> dict[str, float]:
    """What is told of a layer, (n, c, k) its weight."""
    found = fit(ThreeWay(len(weight)), weight, FitRequest(None, statistics))
    b, d, a = (factor.double() for factor in found.factors)
    norms = b.norm(dim=1) * d.norm(dim=1) * a.norm(dim=0)
    features = (b[:, :, None] * d[:, None]).flatten(1)
    energies = (features @ statistics.gram * features).sum(1) * a.square().sum(0)
    return {
        "norms": round((norms.sum() / weight.double().norm()).item(), 2),
        "energies": round((energies.sum() / statistics.energy.sum()).item(), 2),
        "error": round(found.error, 4),
    }


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", help="NET=WEIGHTS")
    parser.add_argument("--data", required=True)
    asked = parser.parse_args()
    net, _, weights = asked.net.partition("=")
    loaded, data = load_with_data(net, asked.data, weights=Path(weights))
    torch.set_num_threads(1)
    modules = dict(loaded.model.named_modules())
    graph = cs.capture(loaded.model, torch.zeros(1, *data.test.shape))
    specs = {node.module: node.conv_spec() for node in graph.layers}
    layers = [name for name, spec in specs.items() if spec and spec.kernel == (3, 3) and spec.in_channels > 3]
    statistics = calibrate(loaded.model, take_images(data), layers)
    rows = []
    for layer in layers:
        weight = modules[layer].get_parameter("weight").detach().flatten(2)
        with patch("convsmith.algebra.cp.RIDGE", 0.0):
            free = told(weight, statistics[layer])
        rows.append({"layer": layer, "terms": len(weight), "free": free, "bounded": told(weight, statistics[layer])})
        print(rows[-1], flush=True)
    medians = {
        which: {name: median(row[which][name] for row in rows) for name in ("norms", "energies", "error")}
        for which in ("free", "bounded")
    }
    record = {"what": __doc__, "net": net, "medians": medians, "layers": rows, **environment()}
    write_text(RESULT, json.dumps(record, indent=1) + "\n")
    print(medians)


if __name__ == "__main__":
    main()
