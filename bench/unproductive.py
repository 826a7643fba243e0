"""Idle layers beside the unproductive ones of rfa_toolbox: `python bench/unproductive.py RFA_PYTHON`.

RFA_PYTHON is an interpreter with rfa_toolbox 1.7.0, torch and torchvision; the toolbox asks for Python before 3.11, and
runs on a newer one when it is installed without its bounds. It follows Richter et al., "Should You Go Deeper?
Optimizing Convolutional Neural Network Architectures without Training" (2021): a convolution is unproductive when the
shortest path to it has a receptive field as large as the input. Writes bench/results/unproductive.json
and the table of docs/metric.md.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import torchvision

import convsmith as cs
from convsmith.environment import environment
from convsmith.files import write_text
from convsmith.score.advice import advise
from convsmith.structure.stages import is_spatial

RESULT = Path(__file__).parent / "results" / "unproductive.json"
PAGE = Path(__file__).parent.parent / "docs" / "metric.md"
NETS = ("resnet50", "vgg16_bn", "mobilenet_v2", "densenet121")
SIDES = (32, 64, 128, 224)
COUNTED = ("idle", "unproductive", "both", "covered")


def main() -> None:
    theirs = their_answer(sys.argv[1])
    rows = [row(net, side, theirs["nets"][net]) for net in NETS for side in SIDES]
    told = {"what": __doc__, "rows": rows, "rfa_toolbox": theirs["versions"], **environment()}
    write_text(RESULT, json.dumps(told, indent=1) + "\n")
    before, _, rest = PAGE.read_text().partition("<!-- unproductive -->\n")
    write_text(PAGE, f"{before}<!-- unproductive -->\n{markdown(rows)}{rest[rest.index('<!-- /unproductive -->') :]}")


def markdown(rows: list[dict[str, Any]]) -> str:
    """A table with the number of convolutions that each definition names."""
    columns = ["net", "input", "convolutions", *COUNTED]
    cells = [[row[key] for key in columns[:3]] + [len(row[key]) for key in COUNTED] for row in rows]
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *cells]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def their_answer(python: str) -> dict[str, Any]:
    script = Path(__file__).with_name("rfa_layers.py")
    command = [python, str(script), ",".join(NETS), ",".join(map(str, SIDES))]
    told: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return told


def row(net: str, side: int, theirs: dict[str, Any]) -> dict[str, Any]:
    """One net on one input: the spatial convolutions that each definition names."""
    with torch.device("meta"):
        model = getattr(torchvision.models, net)()
    graph = cs.capture(model, torch.zeros(1, 3, side, side, device="meta"), name=net)
    scores, reaches = cs.score(graph), graph.reaches()
    advice = advise(graph, scores)
    spatial = [node for node in graph.layers if is_spatial(node)]
    names = dict(zip(map(tuple, theirs["all"]), in_their_order([node.module for node in spatial]), strict=True))
    unproductive = [names[tuple(place)] for place in theirs["unproductive"][str(side)]]
    idle = [scores.layers[place].name for place in sorted(advice.idle)]
    covered = [n.module for n in spatial if reaches[graph.sources(n)[0]].extent().window == (side, side)]
    widest = max(max(reaches[node.name].extent().window_free) for node in spatial)
    found = {
        "net": net, "input": side, "convolutions": len(spatial), "idle": idle, "unproductive": unproductive,
        "both": sorted({*idle} & {*unproductive}), "covered": covered,
        "widest convolution window": widest, "their widest window": theirs["input_range"][1],
    }  # fmt: skip
    print(net, side, *(f"{key}: {len(value)}" for key, value in found.items() if isinstance(value, list)), flush=True)
    return found


def in_their_order(names: list[str]) -> list[str]:
    """Sorted by the module around them; those in one module stay in the order of the net, as their numbers do."""
    return sorted(names, key=lambda name: name.rpartition(".")[0])


if __name__ == "__main__":
    main()
