"""Where the metric is no guide, and what the organizer does by gain and by value: the rest of bench/metric.py."""

from typing import Any

import numpy as np
import timm
import torch
import torchvision

import convsmith as cs
from ranks_of_nets import kendall

FAMILIES = ("regnet_x", "regnet_y")
SIZES = ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")
NETS = (
    ("vgg11", 32), ("vgg16", 32), ("vgg19", 32), ("resnet50", 32), ("mobilenet", 32), ("vgg16", 224), ("vgg19", 224),
    ("resnet50", 224), ("mobilenet", 224), ("resnet18", 32), ("resnet20", 32), ("mobilenetv2", 32),
    ("mobilenetv2", 224), ("shufflenetv2-1.0", 224), ("timm:efficientnet_b0", 224), ("timm:mobilenetv3_large_100", 224),
    ("timm:mnasnet_100", 224), ("timm:mixnet_s", 224),
)  # fmt: skip
LIMITS = (None, 0.8, 1.0, 1.2)


def regnets() -> dict[str, Any]:
    """RegNets of one recipe, accuracies as torchvision tells them of its first weights: widths, depths, groups vary."""
    nets = [regnet(f"{family}_{size}") for family in FAMILIES for size in SIZES]
    accuracy = np.array([net["top1"] for net in nets])
    own = {name: np.array([net[name] for net in nets], float) for name in ("params", "macs", "gain", "value")}
    return {"nets": nets, "kendall": {name: kendall(values, accuracy) for name, values in own.items()}}


def regnet(name: str) -> dict[str, Any]:
    weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    scores = cs.score(graph_of(f"torchvision:{name}", 224))
    top1 = weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    told = {"params": scores.params, "macs": scores.macs, "gain": scores.gain, "value": scores.value}
    return {"net": name, "top1": top1} | {key: round(value, 3) for key, value in told.items()}


def optima() -> list[dict[str, Any]]:
    """Units per stage that the organizer finds by gain and by value, for as many units, within some budgets on MACs."""
    rows = []
    for name, side in NETS:
        graph = graph_of(name, side)
        for limit in LIMITS:
            try:
                one, other = (cs.organize(graph, max_macs=limit, by=by).new for by in ("gain", "value"))
            except cs.ConvsmithError:  # no spread keeps the budget
                continue
            rows.append({
                "net": name, "input": side, "MACs": limit, "by gain": one.blocks, "by value": other.blocks,
                "gains": (round(one.gain, 3), round(other.gain, 3)),
                "values": (round(one.value or 0, 3), round(other.value or 0, 3)),
            })  # fmt: skip
    return rows


def graph_of(name: str, side: int) -> cs.Graph:
    """A net of the zoo, timm or torchvision, captured."""
    source, _, net = name.rpartition(":")
    with torch.device("cpu" if source == "torchvision" else "meta"):  # its RegNets ask for values when they are built
        if source == "timm":
            model = timm.create_model(net)
        elif source == "torchvision":
            model = torchvision.models.get_model(net)
        else:
            model = cs.build(name, input=(3, side, side))
    return cs.capture(model.eval(), torch.zeros(1, 3, side, side, device="meta"), name=name)
