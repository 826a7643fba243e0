"""Put planned blocks in the place of convolutions, and carry the trained weights into them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convsmith.algebra import FitRequest
from convsmith.algebra.second_moments import Rows, Statistics
from convsmith.blocks import Block, Carried, parse_block
from convsmith.calibration.fitting import fitted_to, own_statistics
from convsmith.calibration.in_order import Calibration
from convsmith.calibration.joins import affine
from convsmith.calibration.pictures import Pictures
from convsmith.calibration.refitting import ROWS, behind, place_of, reaches_relu, refit_in_order, shift_norm
from convsmith.errors import PlanError, at
from convsmith.graph import Graph, is_norm
from convsmith.kernels.spec import Convolution, ConvSpec, is_plain
from convsmith.plan import Merge, Replace
from convsmith.progress import Progress, silent
from convsmith.structure.editable import untouchable
from convsmith.structure.pairs import Pair, find_pairs


@dataclass(frozen=True)
class Transfer:
    """How weights are carried: fitted to `images` in order of execution, or to `statistics` by layer.

    method: None for the best that each block's form knows.
    images: (n, c, h, w); statistics: moments of the net as it was; neither: the weights are all that is fitted.
    relu: with images, refit the last kernel of a block for the ReLU behind it, where there is one.
    draft: fits descend a fifth as far, enough to compare plans by.
    steps: with images, steps of a joint refit of all weights after all fits. judging: images that it is judged by.
    """

    method: str | None = None
    images: Pictures | None = None
    statistics: Mapping[str, Statistics] | None = None
    seed: int = 0
    relu: bool = True
    draft: bool = False
    steps: int = 0
    judging: Pictures | None = None


def put_blocks(
    original: nn.Module,
    model: nn.Module,
    graph: Graph,
    edits: Sequence[Replace],
    transfer: Transfer | None,
    progress: Progress = silent,
    removed: Sequence[tuple[str, ...]] = (),
    masks: Mapping[str, Tensor] | None = None,
    refits: bool = True,
) -> dict[str, float | None]:
    """Replace layers of `model`, a copy of `original`; answers the error of each whose weights were carried.

    transfer: None leaves blocks as initialized. removed: units that `model` is going to do without. masks: by layer,
    the input channels (C,) bool that it is going to read. With images, all convolutions that stay behind the first of
    these are refitted, unless `refits` says that this has been done. Raises ConvsmithError, naming the layer, on what
    is no plain convolution, on statistics that lack a layer, and on a layer replaced twice.
    """
    if twice := [layer for layer, times in Counter(edit.layer for edit in edits).items() if times > 1]:
        raise PlanError(f"{twice[0]} is replaced twice by the plan; take one of its edits out.")
    built = {edit.layer: _build(model, graph, edit) for edit in edits}
    if transfer is None:
        errors: dict[str, float | None] = {}
    elif transfer.images is None:
        errors = {}
        for layer in built:
            progress(f"fitting {layer}", len(errors), len(built))
            errors[layer] = _carry_alone(model, graph, layer, *built[layer], transfer)
    else:
        errors = _carry_in_order(original, model, graph, built, transfer, progress, removed, masks or {}, refits)
    for layer, (_, module) in built.items():
        model.set_submodule(layer, module)
    return errors


def find(model: nn.Module, path: str) -> nn.Module:
    """A module by its path; raises ConvsmithError where there is none."""
    if not path or path not in dict(model.named_modules()):
        raise PlanError(f"The plan edits {path!r}, which this model does not have; take that edit out.")
    return model.get_submodule(path)


def _build(model: nn.Module, graph: Graph, edit: Replace) -> tuple[Block, nn.Sequential]:
    conv = _convolution(model, edit.layer)
    nodes = [node for node in graph.nodes if node.module == edit.layer]
    reason = untouchable(graph, nodes[0], nodes[0].conv_spec()) if nodes else "nothing calls it"
    if reason:
        raise PlanError(f"{edit.layer} cannot be replaced: {reason}; take that edit out.")
    with at(edit.layer), torch.device(conv.weight.device):
        block = parse_block(edit.block)
        built = block.build(ConvSpec.of(conv)).to(dtype=conv.weight.dtype)
    return block, built.train(conv.training)


def _convolution(model: nn.Module, layer: str) -> Convolution:
    conv = find(model, layer)
    if not is_plain(conv):
        kind = type(conv).__name__
        raise PlanError(f"{layer} is a {kind}, not a plain convolution; plan again with this model.")
    return conv


def _carry_alone(
    model: nn.Module, graph: Graph, layer: str, block: Block, module: nn.Sequential, transfer: Transfer
) -> float | None:
    conv, found = _convolution(model, layer), None
    if transfer.statistics is not None and block.fitted:
        if layer not in transfer.statistics:
            raise PlanError(f"The statistics lack {layer}; calibrate with this model and the layers of the plan.")
        found = fitted_to(graph, layer, own_statistics(layer, conv, transfer.statistics[layer]))
    with at(layer):
        return _settle(model, graph, layer, block.carry(conv, module, FitRequest(transfer.method, found)))


def _carry_in_order(
    original: nn.Module,
    model: nn.Module,
    graph: Graph,
    built: Mapping[str, tuple[Block, nn.Sequential]],
    transfer: Transfer,
    progress: Progress,
    removed: Sequence[tuple[str, ...]],
    masks: Mapping[str, Tensor],
    refits: bool,
) -> dict[str, float | None]:
    """Each layer is fitted to what it will see behind those already changed, against the original's responses."""
    assert transfer.images is not None
    calibration = Calibration(original, model, transfer.images, seed=transfer.seed, removed=removed)
    errors: dict[str, float | None] = {}
    places = [place_of(graph, modules) for modules in (*removed, *((layer,) for layer in masks))]
    first = min(places, default=len(graph.nodes))
    stay = {layer for layer in behind(graph, first, calibration.order) if refits and layer not in built}
    todo = [layer for layer in calibration.order if layer in built or layer in stay]
    for number, layer in enumerate(todo):
        progress(f"fitting {layer}", number, len(todo))
        with at(layer):
            if layer in stay:
                error = refit_in_order(model, graph, layer, calibration, relu=transfer.relu, kept=masks.get(layer))
                errors |= {layer: error} if layer in masks else {}
                continue
            block, module = built[layer]
            if block.fitted:
                errors[layer] = _fit_in_order(model, graph, layer, block, module, calibration, transfer)
            else:
                errors[layer] = block.carry(_convolution(model, layer), module, FitRequest(transfer.method)).error
        calibration.put(layer, module)
    return errors


def _wanted(graph: Graph, layer: str, calibration: Calibration, transfer: Transfer) -> tuple[Statistics, Rows | None]:
    """What a layer sees and is to answer, with rows where a ReLU alone reads that."""
    relu = transfer.relu and reaches_relu(graph, layer)
    sample = calibration.sample(layer, ROWS if relu else 0)
    rows = sample.rows() if relu else None
    return fitted_to(graph, layer, sample.statistics()), rows


def _fit_in_order(
    model: nn.Module,
    graph: Graph,
    layer: str,
    block: Block,
    module: nn.Sequential,
    calibration: Calibration,
    transfer: Transfer,
) -> float | None:
    request = FitRequest(transfer.method, *_wanted(graph, layer, calibration, transfer), transfer.draft)
    return _settle(model, graph, layer, block.carry(_convolution(model, layer), module, request))


def _settle(model: nn.Module, graph: Graph, layer: str, carried: Carried) -> float | None:
    """Where no bias can hold the mean of what was lost, the BatchNorm behind subtracts it."""
    if carried.shift is not None:
        shift_norm(model, graph, layer, carried.shift)
    return carried.error


def merge_pairs(model: nn.Module, graph: Graph, edits: Sequence[Merge], carry: bool) -> None:
    """Put one convolution in the place of each separable pair of `model`; carry: with the weights of both.

    Activations between count as linear: what goes with them has to be learned. Raises ConvsmithError on an edit that is
    no pair of this model.
    """
    pairs = {pair.edit.unit: pair for pair in find_pairs(graph)[0]} if edits else {}
    for edit in edits:
        if edit.unit not in pairs:
            raise PlanError(f"{' + '.join(edit.unit)} is no pair that can be merged; take it out of the plan.")
        pair = pairs[edit.unit]
        second = _convolution(model, edit.pointwise)
        with torch.device(second.weight.device):
            merged = pair.spec.standard().to(second.weight.dtype)
        if carry:
            _carry_pair(model, graph, pair, merged)
        for path in edit.unit[:-1]:
            model.set_submodule(path, nn.Identity())
        model.set_submodule(edit.pointwise, merged.train(second.training))


def _carry_pair(model: nn.Module, graph: Graph, pair: Pair, merged: Convolution) -> None:
    """W[n, c, :] = p[n, c] s[c] d[c, :] and b = p t + b_p, where s and t scale and shift channels between the two."""
    first, second = (_convolution(model, node.module) for node in (pair.first, pair.second))
    like = first.weight.detach().double().flatten(2)[:, 0]  # (c, 1, kh, kw) -> (c, k)
    scale, shift = torch.ones_like(like[:, 0]), torch.zeros_like(like[:, 0])
    if first.bias is not None:
        shift = first.bias.detach().double()
    for node in filter(is_norm, pair.between):
        factor, term = affine(model.state_dict(), node)
        scale, shift = scale * factor, shift * factor + term
    across = second.weight.detach().double().flatten(1)  # (n, c, 1, 1) -> (n, c)
    constant = across @ shift
    if second.bias is not None:
        constant += second.bias.detach().double()
    with torch.no_grad():
        merged.weight.copy_(torch.einsum("nc,c,ck->nck", across, scale, like).view_as(merged.weight))
        if merged.bias is not None:
            merged.bias.copy_(constant)
        else:
            shift_norm(model, graph, pair.second.module, constant)
