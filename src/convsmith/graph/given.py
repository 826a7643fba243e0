"""A graph as the verbs are given it: captured already, or as a module with an example of its input."""

from typing import Any

from torch import nn

from convsmith.errors import ConvsmithError
from convsmith.graph.capture import capture
from convsmith.graph.graph import Graph
from convsmith.graph.plain import plain
from convsmith.graph.wrappers import unwrapped


def graph_of(net: Graph | nn.Module, example: Any = None) -> Graph:
    """The graph itself, or that of a module on an example.

    example: a tensor with a batch in front, a tuple of arguments, or a list or dictionary as forward takes it.


    Raises:
        ConvsmithError: for a module without an example, and for anything else.
    """
    if isinstance(net, Graph):
        return net
    if not isinstance(net, nn.Module):
        raise ConvsmithError(
            f"A {type(net).__name__} was given; give an nn.Module with an example, or cs.capture's graph."
        )
    if example is None:
        raise ConvsmithError(
            f"{type(net).__name__} was given without an example input; add one, as torch.zeros(1, 3, 224, 224)."
        )
    return capture(net, *(example if isinstance(example, tuple) else (example,)))


def bare(model: nn.Module | None) -> nn.Module | None:
    """The model that a graph speaks of: out of its wrappers, its weights the plain ones that their parts make.

    >>> bare(nn.DataParallel(nn.ReLU()))
    ReLU()
    """
    return None if model is None else plain(unwrapped(model))
