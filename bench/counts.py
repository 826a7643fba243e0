"""Multiply-accumulates of torchvision's classifiers, ours and those that it states: `python bench/counts.py`.

What torchvision states stands in the metadata of its weights, in units of 1e9 with three digits. fvcore, ptflops,
torchinfo and calflops stand beside ours in bench/results/analyze.json. Writes bench/results/counts.json.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models import get_model_builder, get_model_weights, list_models

import convsmith as cs
from convsmith.environment import environment
from convsmith.errors import ConvsmithError
from convsmith.files import write_text

RESULT = Path(__file__).parent / "results" / "counts.json"


def main() -> None:
    """Count every classifier that torchvision has weights for."""
    names = list_models(torchvision.models)
    rows = [row for name in names if (row := counted(name)) is not None]
    write_text(RESULT, json.dumps({"what": __doc__, "nets": rows} | environment(), indent=1) + "\n")
    for row in rows:
        print(row, None if row["macs"] is None else f"{row['macs'] / 1e9 / row['stated']:.4f}")


def counted(name: str) -> dict[str, Any] | None:
    """A net's counts, at the image size that its weights were tested with; None where torchvision states none."""
    weights = next(iter(get_model_weights(name)))
    stated = weights.meta.get("_ops")
    if stated is None:
        return None
    side = weights.transforms().crop_size[0]
    told = {"name": name, "input": side, "macs": None, "stated": stated}
    try:
        return told | {"macs": cs.capture(built(name, side), torch.zeros(1, 3, side, side, device="meta")).macs}
    except ConvsmithError as error:
        return told | {"reason": str(error)}


def built(name: str, side: int) -> nn.Module:
    """The net without memory for weights; a RegNet reads numbers while it is built, and is freed of them behind."""
    make = partial(get_model_builder(name), weights=None, **({"image_size": side} if name.startswith("vit") else {}))
    try:
        with torch.device("meta"):
            return make().eval()
    except NotImplementedError:
        return make().eval().to("meta")


if __name__ == "__main__":
    main()
