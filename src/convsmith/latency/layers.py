"""The measured time of each layer of a net, of those that are modules of their own."""

from collections import Counter

from torch import nn

from convsmith.graph import Graph
from convsmith.latency.measure import Latencies


def layer_milliseconds(model: nn.Module, graph: Graph, latencies: Latencies) -> list[float | None]:
    """Milliseconds by layer, in the order of `graph.layers`; None for a call in the midst of a larger module.

    A module that is called several times has its time in equal parts.

    >>> import torch
    >>> from convsmith.graph.capture import capture
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1))
    >>> layer_milliseconds(net, capture(net, torch.zeros(1, 3, 9, 9)), Latencies({"": 3e-3, "0": 2e-3, "1": 1e-3}))
    [2.0, 1.0]
    """
    calls = Counter(node.module for node in graph.layers)
    alone = {path for path, module in model.named_modules() if not list(module.children())}
    return [
        1e3 * latencies.modules[node.module] / calls[node.module]
        if node.module in alone and node.module in latencies.modules
        else None
        for node in graph.layers
    ]
