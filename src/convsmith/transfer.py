"""Put planned blocks in the place of convolutions, and carry the trained weights into them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from convsmith.blocks import Block, Carried, parse_block
from convsmith.calibrate import Calibration
from convsmith.conv import ConvSpec
from convsmith.errors import ConvsmithError
from convsmith.graph import Graph
from convsmith.plan import Replace
from convsmith.statistics import Statistics


@dataclass(frozen=True)
class Means:
    """How weights are carried: by `method`; fitted to `images` in order of execution, or to `statistics` by layer.

    images: (n, c, h, w); statistics: moments of the net as it was; neither: the weights are all that is fitted.
    """

    method: str
    images: Tensor | None = None
    statistics: Mapping[str, Statistics] | None = None
    seed: int = 0


def put_blocks(
    original: nn.Module, model: nn.Module, graph: Graph, edits: Sequence[Replace], means: Means | None
) -> list[Replace]:
    """Replace layers of `model`, a copy of `original`; the edits come back, with the error of each that was carried.

    means: None leaves blocks as initialized. Raises ConvsmithError on what is no plain convolution, and on statistics
    that lack a layer, and a layer replaced twice.
    """
    if twice := [layer for layer, times in Counter(edit.layer for edit in edits).items() if times > 1]:
        raise ConvsmithError(f"{twice[0]} is replaced twice by the plan; take one of its edits out.")
    built = {edit.layer: _build(model, edit) for edit in edits}
    if means is None:
        errors: dict[str, float] = {}
    elif means.images is None:
        errors = {layer: _carry_alone(model, graph, layer, *built[layer], means) for layer in built}
    else:
        errors = _carry_in_order(original, model, graph, built, means)
    for layer, (_, module) in built.items():
        model.set_submodule(layer, module)
    return [replace(edit, error=errors.get(edit.layer)) for edit in edits]


def find(model: nn.Module, path: str) -> nn.Module:
    """A module by its path; raises ConvsmithError where there is none."""
    if not path or path not in dict(model.named_modules()):
        raise ConvsmithError(f"The plan edits {path!r}, which this model does not have; take that edit out.")
    return model.get_submodule(path)


def _build(model: nn.Module, edit: Replace) -> tuple[Block, nn.Sequential]:
    conv, block = _convolution(model, edit.layer), parse_block(edit.block)
    with torch.device(conv.weight.device):
        built = block.build(ConvSpec.of(conv)).to(dtype=conv.weight.dtype)
    return block, built.train(conv.training)


def _convolution(model: nn.Module, layer: str) -> nn.Conv2d:
    conv = find(model, layer)
    if not isinstance(conv, nn.Conv2d):
        raise ConvsmithError(f"{layer} is no convolution module; take it out of the plan.")
    if type(conv).forward is not nn.Conv2d.forward:  # standardized weights, padding of its own
        raise ConvsmithError(f"{layer} is a {type(conv).__name__}, not a plain convolution; take it out of the plan.")
    return conv


def _carry_alone(
    model: nn.Module, graph: Graph, layer: str, block: Block, module: nn.Sequential, means: Means
) -> float:
    if means.statistics is not None and layer not in means.statistics:
        raise ConvsmithError(f"The statistics lack {layer}; calibrate with this model and the layers of the plan.")
    found = None if means.statistics is None else means.statistics[layer]
    return _settle(model, graph, layer, block.carry(_convolution(model, layer), module, means.method, found))


def _carry_in_order(
    original: nn.Module,
    model: nn.Module,
    graph: Graph,
    built: Mapping[str, tuple[Block, nn.Sequential]],
    means: Means,
) -> dict[str, float]:
    """Each layer is fitted to what it will see behind those already replaced, against the original's responses."""
    assert means.images is not None
    calibration = Calibration(original, model, means.images, seed=means.seed)
    errors = {}
    for layer in calibration.order:
        if layer in built:
            block, module = built[layer]
            carried = block.carry(_convolution(model, layer), module, means.method, calibration.statistics(layer))
            errors[layer] = _settle(model, graph, layer, carried)
            calibration.put(layer, module)
    return errors


def _settle(model: nn.Module, graph: Graph, layer: str, carried: Carried) -> float:
    """Where no bias can hold the mean of what was lost, the BatchNorm behind subtracts it."""
    name = next(node.name for node in graph.nodes if node.module == layer)
    readers = [node for node in graph.nodes if name in graph.sources(node)]
    norms = [node.call["running_mean"] for node in readers if node.call.op == "aten.batch_norm.default"]
    if carried.shift is not None and len(readers) == 1 and norms and norms[0] is not None:
        model.get_buffer(norms[0].name).sub_(carried.shift)
    return carried.error
