"""Convolutions of a changed net solved anew in order of execution, for what they see now."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convsmith.algebra.dense import refit
from convsmith.calibration.fitting import fitted_to
from convsmith.calibration.in_order import Calibration
from convsmith.calibration.joins import Behind
from convsmith.calibration.sharing import agree
from convsmith.graph import Graph, Node
from convsmith.kernels.spec import is_plain
from convsmith.structure.editable import untouchable
from convsmith.structure.units import calls_inside

# Rows kept of a layer: many times the entries that an output's row of its last factor has. Of 512 channels they take
# 150 MB, as much as their moments.
ROWS = 8192


def behind(graph: Graph, first: int, order: Sequence[str]) -> list[str]:
    """The convolutions of `order` from a call's place on whose own weights can be solved anew."""
    nodes = {node.module: node for node in graph.nodes[first:]}
    return [layer for layer in order if layer in nodes and refittable(graph, nodes[layer])]


def place_of(graph: Graph, modules: tuple[str, ...]) -> int:
    """Where the first call that modules, or those within them, make stands."""
    inside = {node.name for node in calls_inside(graph, modules)}
    return next(place for place, node in enumerate(graph.nodes) if node.name in inside)


def refittable(graph: Graph, node: Node) -> bool:
    """Whether a call is a convolution over all channels whose weight can be solved anew."""
    spec = node.conv_spec()
    return spec is not None and spec.groups == 1 and not untouchable(graph, node, spec)


def reaches_relu(graph: Graph, layer: str) -> bool:
    """Whether a layer can be refitted for the ReLU behind it.

    Without a bias the refit, which shifts what it cannot scale, would promise what is not kept.
    """
    node = node_of(graph, layer)
    return graph.holds_mean(node) and Behind.of(graph, node).relu


def node_of(graph: Graph, layer: str) -> Node:
    """The first call of a module."""
    return next(node for node in graph.nodes if node.module == layer)


def refit_in_order(
    model: nn.Module,
    graph: Graph,
    layer: str,
    calibration: Calibration,
    *,
    relu: bool = True,
    kept: Tensor | None = None,
) -> float:
    """Solve a convolution's weight and bias anew in place; answers the relative error.

    model: the changed net of `calibration`; kept: (C,) bool, the input channels that it is to read.
    """
    conv = model.get_submodule(layer)
    assert is_plain(conv)
    rows = ROWS if relu and reaches_relu(graph, layer) else 0
    samplers = calibration.halves(layer, rows)
    seen = [sampler.rows() for sampler in samplers] if rows else []
    fitted, *held_out = (fitted_to(graph, layer, sampler.statistics()) for sampler in samplers)
    solution = refit(conv.weight.detach().flatten(2), fitted, held_out[0] if held_out else None, seen, kept)
    with torch.no_grad():
        conv.weight.copy_(solution.factors[0].view_as(conv.weight))
        if solution.bias is not None:
            if conv.bias is None:
                shift_norm(model, graph, layer, solution.bias)
            else:
                conv.bias.copy_(solution.bias)
    agree(conv)
    return solution.error


def shift_norm(model: nn.Module, graph: Graph, layer: str, shift: Tensor) -> None:
    """Have the BatchNorm behind a layer without bias add a shift (N,) to what it reads, if there is one."""
    norm = graph.norm_behind(node_of(graph, layer))
    if norm is not None:
        model.get_buffer(norm.call["running_mean"].name).sub_(shift)
