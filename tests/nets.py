"""Nets and graphs that tests share."""

from functools import cache

import torch
from torch import nn

import convsmith as cs


def meta_net(name: str, side: int, blocks: tuple[int, ...] | None = None, classes: int | None = None) -> nn.Module:
    with torch.device("meta"):
        return cs.build(name, input=(3, side, side), classes=classes, blocks_per_stage=blocks).eval()


@cache
def zoo_graph(name: str, side: int = 32, classes: int | None = None) -> cs.Graph:
    net = meta_net(name, side, classes=classes)
    return cs.capture(net, torch.zeros(1, 3, side, side, device="meta"), name=name)


def graph_of(net: nn.Module, *shape: int) -> cs.Graph:
    return cs.capture(net, torch.zeros(1, *shape, device=next(net.parameters(), torch.zeros(0)).device))
