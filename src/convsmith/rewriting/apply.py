"""Apply a plan to a copy of a model, carry the weights, and prove the shapes."""

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from convsmith.algebra.second_moments import Statistics
from convsmith.calibration.calibrate import IMAGES, Images, take_images
from convsmith.errors import ConvsmithError
from convsmith.graph import Graph
from convsmith.graph.capture import capture
from convsmith.plan import Merge, Plan, Remove, Repeat, Replace
from convsmith.planning.allocation import reallocate
from convsmith.rewriting.weight_transfer import Means, Progress, find, merge_pairs, put_blocks
from convsmith.text import times

WEIGHTS = Means()


@dataclass(frozen=True)
class Applied:
    """The new model, and the plan with the error of every layer whose weights were carried."""

    model: nn.Module
    plan: Plan


def apply(
    model: nn.Module,
    plan: Plan,
    *,
    method: str | None = None,
    data: Images | None = None,
    images: int = IMAGES,
    statistics: Mapping[str, Statistics] | None = None,
    seed: int = 0,
    relu: bool | None = None,
) -> nn.Module:
    """The model that `plan` makes of a copy of `model`; the model itself stays as it is.

    method: how weights are carried into blocks, a name in METHODS; `none` leaves blocks as initialized. By default
    the best that each block knows, `als` with data or statistics, `svd` of weights alone.
    data: unlabelled images to fit responses on (a tensor, a data set, or batches), of which `images` are taken; layers
    are then fitted in order, each to the original's responses behind those replaced before. Ranks that a plan chose
    under a budget are chosen anew by the error they cause.
    statistics: of `calibrate`, for fits layer by layer without data. seed: draws images and positions.
    relu: with data, refit the last kernel of each block for the error behind the ReLU, where the response goes into
    nothing else, a BatchNorm between them aside, and where that error becomes less (Zhang et al., 2015); layers with an
    addition, another activation or nothing behind them keep the fit to their responses. By default so with data.
    Raises ConvsmithError when the plan was made for another model or input, and on data or a method that do not fit.

    >>> import convsmith as cs, torch
    >>> vgg, x = cs.build("vgg11", input=(3, 32, 32), classes=10), torch.zeros(1, 3, 32, 32)
    >>> cs.apply(vgg, cs.organize(cs.capture(vgg, x)))(x).shape
    torch.Size([1, 10])
    """
    taken = None if data is None else take_images(data, images, seed)
    return rewrite(model, plan, means_of(method, taken, statistics, seed, relu)).model


def means_of(
    method: str | None,
    images: Tensor | None = None,
    statistics: Mapping[str, Statistics] | None = None,
    seed: int = 0,
    relu: bool | None = None,
) -> Means | None:
    """How weights are carried when so much is told: see `apply`."""
    if relu and (images is None or method == "none"):
        raise ConvsmithError(
            "A refit for the ReLU behind a layer needs images in order of execution; give data, and neither statistics "
            "nor the method none, or leave it out."
        )
    if method == "none":
        if images is not None or statistics is not None:
            raise ConvsmithError("The method none carries no weights, so nothing is fitted; leave data out.")
        return None
    return Means(method, images, statistics, seed, relu is not False)


def rewrite(model: nn.Module, plan: Plan, means: Means | None = WEIGHTS, progress: Progress | None = None) -> Applied:
    """The same as `apply`, with the attained errors in the plan; means: None leaves blocks as initialized.

    progress: told of every layer that is priced or fitted to images.
    """
    base = capture_for(model, plan)
    if base.fingerprint != plan.fingerprint:
        raise ConvsmithError(
            f"The plan was made for {plan.model} on input {times(plan.input)} and does not fit this model's layers; "
            "make a plan for this model with `convsmith organize` or `decompose`."
        )
    if plan.budget is not None and means is not None and means.images is not None:
        plan = reallocate(
            model, base, plan.budget, means.images, means.method, means.statistics, means.seed, progress=progress
        )
    new = deepcopy(model)
    blocks = [edit for edit in plan.edits if isinstance(edit, Replace)]
    replaced = put_blocks(model, new, base, blocks, means, progress)
    merge_pairs(new, base, [edit for edit in plan.edits if isinstance(edit, Merge)], means is not None)
    _move_units(new, [edit for edit in plan.edits if isinstance(edit, Repeat | Remove)])
    by_layer = {edit.layer: edit for edit in replaced}
    edits = [by_layer[edit.layer] if isinstance(edit, Replace) else edit for edit in plan.edits]
    _prove(base, capture_for(new, plan), plan)
    return Applied(new, replace(plan, edits=tuple(edits)))


def capture_for(model: nn.Module, plan: Plan) -> Graph:
    """Capture a model on the input shape that a plan was made for."""
    like = next(model.parameters(), torch.zeros(0))
    return capture(model, torch.zeros(1, *plan.input, device=like.device, dtype=like.dtype), name=plan.model)


def _move_units(model: nn.Module, edits: Iterable[Repeat | Remove]) -> None:
    """All moves of one parent at once, and all parents found first: paths are those of the model before any move."""
    by_parent: dict[nn.Module, list[Repeat | Remove]] = defaultdict(list)
    for edit in edits:
        for path in edit.unit:
            find(model, path)
        by_parent[_parent(model, edit)].append(edit)
    for parent, moves in by_parent.items():
        if isinstance(parent, nn.Sequential):
            _rebuild(parent, moves)
        else:
            _wrap(parent, moves)


def _parent(model: nn.Module, move: Repeat | Remove) -> nn.Module:
    """The one module that holds the unit; neighbours are a unit in a sequence only, as its order is that of calls."""
    paths = {path.rpartition(".")[0] for path in move.unit}
    parent = model.get_submodule(paths.pop())
    if paths or (len(move.unit) > 1 and not isinstance(parent, nn.Sequential)):
        raise ConvsmithError(f"{' + '.join(move.unit)} are no neighbours in one nn.Sequential; take that edit out.")
    return parent


def _rebuild(parent: nn.Sequential, moves: Sequence[Repeat | Remove]) -> None:
    """The children of a sequence with units copied or left out, numbered afresh where they were numbers."""
    children = dict(parent.named_children())
    names: list[tuple[str, nn.Module]] = []
    for name, child in children.items():
        removed = any(isinstance(m, Remove) and name in _names(m) for m in moves)
        names += [] if removed else [(name, child)]
        for move in moves:
            if isinstance(move, Repeat) and name == _names(move)[-1]:
                unit = [(n, children[n]) for n in _names(move)]
                names += [
                    (_free(f"{n}_{i}", children), deepcopy(m)) for i in range(1, move.copies + 1) for n, m in unit
                ]
    numbered = all(name.isdigit() for name in children)
    parent._modules.clear()
    for i, (name, child) in enumerate(names):
        parent.add_module(str(i) if numbered else name, child)


def _free(name: str, taken: Container[str]) -> str:
    """A name for a copy that no child has already."""
    while name in taken:
        name += "_copy"
    return name


def _wrap(parent: nn.Module, moves: Sequence[Repeat | Remove]) -> None:
    """Modules that their parent calls by name keep it: gone is an identity, repeated is a sequence."""
    for move in moves:
        (name,) = _names(move)
        child = parent.get_submodule(name)
        copies = [deepcopy(child) for _ in range(move.copies)] if isinstance(move, Repeat) else []
        setattr(parent, name, nn.Sequential(child, *copies) if copies else nn.Identity())


def _names(move: Repeat | Remove) -> list[str]:
    return [path.rpartition(".")[2] for path in move.unit]


def _prove(base: Graph, new: Graph, plan: Plan) -> None:
    """The output's shape is the old one, and costs are those the plan promised."""
    before, after = (graph.shapes[graph.outputs[0]] for graph in (base, new))
    if before != after or (new.params, new.macs) != (plan.new.params, plan.new.macs):
        raise ConvsmithError(
            f"The plan does not do what it says: output {before} became {after}, {new.params} parameters and {new.macs}"
            f" MACs instead of {plan.new.params} and {plan.new.macs}; it was edited, or is of another version."
        )
