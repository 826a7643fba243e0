"""The judge of op rules: autograd for what elements see, torch's own counter for what is multiplied."""

from collections.abc import Callable
from copy import deepcopy
from typing import final

import torch
from torch import Tensor, nn

from convsmith.graph import Graph
from convsmith.graph.capture import capture
from convsmith.testing.oracles import disagreements, exceeded, hold, torch_macs, transparent


def check_rule(
    net: nn.Module | Callable[[Tensor], Tensor], x: Tensor, *, op: str = "", draws: int = 3, bound: bool = False
) -> Graph:
    """Judge the rules of all ops that a small net calls on an input x (1, c, *map); its graph comes back.

    Every op is known, and shapes are those of a run. Multiply-accumulates are half of what FlopCounterMode counts. Of
    up to 60 output elements the channels and the window seen are those with a gradient, all weights made positive.

    net: a module, or a function of x. op: one that it must call, so that a rule is not taken for judged that is not
    asked. draws: random inputs whose gradients are united; ops that choose among elements need more. bound: the rule
    may say more than is seen, never less, as where it depends on values. Raises AssertionError.

    >>> check_rule(nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.ReLU()), torch.zeros(1, 4, 7, 6)).macs
    2160
    """
    judged = transparent(deepcopy(net) if isinstance(net, nn.Module) else _Called(net))
    x = x.double()
    graph = capture(judged, x)
    called = sorted({node.call.op for node in graph.nodes})
    hold(not op or op in called, f"{op} is not called, but {', '.join(called)}; judge it in a net that calls it.")
    hold(not graph.unknown_ops, f"No rule for {', '.join(graph.unknown_ops)}; register one.")
    output = graph.outputs[0]
    with torch.no_grad():
        shape = tuple(judged(x).shape)
    hold(graph.shapes[output] == shape, f"The graph says {graph.shapes[output]}, the output is {shape}.")
    counted = torch_macs(judged, x)
    hold(graph.macs == counted, f"The rules count {graph.macs} multiply-accumulates, torch {counted}; mend `macs`.")
    check_reach(judged, x, graph, draws=draws, bound=bound)
    return graph


@final
class _Called(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        """(1, c, *map) -> what the function makes."""
        return self._function(x)


def check_reach(
    net: nn.Module, x: Tensor, graph: Graph, *, draws: int = 3, bound: bool = False, most: int = 60
) -> None:
    """Hold what a graph's output sees against the gradients of a net of positive weights in float64."""
    reach = graph.reaches().get(graph.outputs[0])
    if reach is None:
        raise AssertionError("The rules say that the output sees nothing of the input.")
    hold(reach.shape == graph.shapes[graph.outputs[0]], f"The reach is of shape {reach.shape}, the output of another.")
    gated = reach.extent().gated  # by all that a gate saw, which is not part of a window
    for index, computed, by_gradient in disagreements(net, x.shape[1:], reach, most=most, draws=draws):
        if exceeded(by_gradient, computed) if gated else exceeded(computed, by_gradient) or not (bound or reach.bound):
            raise AssertionError(
                f"Output {index} sees channels and spans {_told(by_gradient)} by autograd, "
                f"{_told(computed)} by the rules."
            )


def _told(seen: tuple[tuple[bool, ...], tuple[tuple[int, int], ...]]) -> str:
    channels, spans = seen
    return f"{[c for c, sees in enumerate(channels) if sees]} {list(spans)}"
