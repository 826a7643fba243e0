"""Carry out a plan on a copy of a model: exactly its edits, with the weights fitted, shapes and costs proved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from convsmith.algebra.second_moments import Statistics
from convsmith.calibration.calibrate import IMAGES, Images, form_of, take_images
from convsmith.calibration.matching import Pair
from convsmith.calibration.pictures import Pictures
from convsmith.errors import PlanError
from convsmith.graph import Graph
from convsmith.graph.plain import copied, plain
from convsmith.graph.wrappers import unwrapped
from convsmith.plan import Merge, Narrow, Plan, Remove, Repeat, Replace
from convsmith.progress import Progress, silent
from convsmith.rewriting.accounts import capture_for, counted, prove
from convsmith.rewriting.joint_refit import Refit, pairs_of, parted, refit_jointly
from convsmith.rewriting.narrowing import carry_out
from convsmith.rewriting.selecting import fit_narrowed
from convsmith.rewriting.starts import starts_of
from convsmith.rewriting.units import check_moves, move_units
from convsmith.rewriting.weight_transfer import Transfer, merge_pairs, put_blocks
from convsmith.structure.widths import Widths
from convsmith.text import times


@dataclass(frozen=True, eq=False)
class Applied:
    """The new model, and the plan as it was carried out.

    Attributes:
        model: The new module; the original stays as it was.
        plan: The plan with the costs and errors that its edits attained.
        refit: What a joint refit of all weights came to, where there was one.
    """

    model: nn.Module
    plan: Plan
    refit: Refit | None = None

    @property
    def errors(self) -> dict[str, float]:
        """By layer, the relative error of the responses, or without images that of the weight."""
        edits = [edit for edit in self.plan.edits if isinstance(edit, Replace)]
        return {edit.layer: edit.error for edit in edits if edit.error is not None}


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
    refit_steps: int = 0,
    progress: Progress = silent,
) -> nn.Module:
    """The model that `plan` makes of a copy of `model`; the model itself stays as it is.

    The plan is executed as it stands. With images its blocks are fitted to them; none is chosen anew. `rewrite` gives
    the attained errors as well. Weights that forward makes of parts (weight_norm, spectral_norm, pruning masks) are
    plain weights in the new model.

    Args:
        model: The model that the plan was made for.
        plan: Edits, as a planner made them or as they were changed by hand.
        method: How weights are carried into blocks, a name in METHODS. `none` leaves blocks as initialized. By default
            the best that each block knows: `als` with data or statistics, `svd` of weights alone.
        data: Unlabelled images to fit responses on (a tensor, a data set, or batches). Layers are fitted in order, each
            to the original's responses, behind the layers replaced before. For a net of several inputs batches of
            tuples, in the order of its arguments, or of dictionaries by their names.
        images: How many of them are taken.
        statistics: Moments of `calibrate`, for fits layer by layer without data.
        seed: Draws images and positions.
        relu: With data, refit the last kernel of each block for the error behind its ReLU (Zhang et al., 2015). This is
            done where a response goes into nothing but that ReLU, a BatchNorm between them aside, and where the error
            becomes less. Other layers keep the fit to their responses. By default so with data.
        refit_steps: With data, steps of a joint refit after all fits: all weights learn to answer as the original does,
            by gradients on the images moved and mirrored at random, without labels. One in eight of the images is not
            fitted to then: they judge, and the best weights stay.
        progress: Told of every layer that is fitted to images.

    Returns:
        The new module.

    Raises:
        ConvsmithError: When the plan was made for another model or input. On an edit that cannot be made, by its name.
            On data or a method that do not fit.

    >>> import convsmith as cs, torch
    >>> vgg, x = cs.build("vgg11", input=(3, 32, 32), classes=10), torch.zeros(1, 3, 32, 32)
    >>> cs.apply(vgg, cs.organize(cs.capture(vgg, x)))(x).shape
    torch.Size([1, 10])
    """
    return rewrite(
        model, plan, method=method, data=data, images=images, statistics=statistics, seed=seed, relu=relu,
        refit_steps=refit_steps, progress=progress,
    ).model  # fmt: skip


def rewrite(
    model: nn.Module,
    plan: Plan,
    *,
    method: str | None = None,
    data: Images | None = None,
    images: int = IMAGES,
    statistics: Mapping[str, Statistics] | None = None,
    seed: int = 0,
    relu: bool | None = None,
    refit_steps: int = 0,
    progress: Progress = silent,
) -> Applied:
    """Execute a plan as `apply` does, and give back the plan with what its edits attained.

    Args:
        model: The model that the plan was made for; it stays as it is.
        plan: Edits, as a planner made them or as they were changed by hand.
        method: How weights are carried, a name in METHODS; None takes the best that each block knows.
        data: Unlabelled images to fit responses on (a tensor, a data set, or batches).
        images: How many of them are taken.
        statistics: Moments of `calibrate`, for fits layer by layer without data.
        seed: Draws images and positions.
        relu: With data, whether the last kernel of a block is refitted for the error behind its ReLU; see `apply`.
        refit_steps: With data, steps of a joint refit of all weights; see `apply`.
        progress: Told of every layer that is fitted to images.

    Returns:
        The new model, and the plan with its costs counted anew and the attained error of every edit.

    Raises:
        ConvsmithError: As `apply` does.

    >>> import convsmith as cs, torch
    >>> vgg, x = cs.build("vgg11", input=(3, 32, 32), classes=10), torch.zeros(1, 3, 32, 32)
    >>> done = cs.rewrite(vgg, cs.decompose(cs.capture(vgg, x), block="dw-pw:r=9"))
    >>> all(error < 1e-5 for error in done.errors.values())
    True
    """
    if not isinstance(plan, Plan):
        raise PlanError(f"apply: a {type(plan).__name__} was given for the plan; give a cs.Plan.")
    model = plain(unwrapped(model))
    base = capture_for(model, plan)
    if base.fingerprint != plan.fingerprint:
        raise PlanError(
            f"The plan was made for {plan.model} on input {times(plan.input)} and does not fit this model's layers; "
            "make a plan for this model with `convsmith organize` or `decompose`."
        )
    taken = None if data is None else take_images(data, images, seed, *form_of(base))
    return _carried_out(model, base, plan, transfer_of(method, taken, statistics, seed, relu, refit_steps), progress)


def draft(model: nn.Module, plan: Plan, images: Pictures, method: str | None = None, seed: int = 0) -> nn.Module:
    """What `apply` would make, with fits that descend a fifth as far: enough to compare plans by."""
    model = plain(unwrapped(model))
    return _carried_out(model, capture_for(model, plan), plan, Transfer(method, images, seed=seed, draft=True)).model


def _carried_out(
    model: nn.Module, base: Graph, plan: Plan, transfer: Transfer | None, progress: Progress = silent
) -> Applied:
    """The plan carried out on a copy, its sums proved."""
    statistics = None if transfer is None else transfer.statistics
    taken = None if transfer is None else transfer.images
    new = copied(model)
    moves = [edit for edit in plan.edits if isinstance(edit, Repeat | Remove)]
    check_moves(new, base, moves)
    removed = [edit.unit for edit in moves if isinstance(edit, Remove)]
    blocks = [edit for edit in plan.edits if isinstance(edit, Replace)]
    cuts = [edit for edit in plan.edits if isinstance(edit, Narrow)]
    if cuts and transfer is not None and transfer.images is not None:
        cuts = fit_narrowed(model, new, base, cuts, transfer, progress, removed)
    narrowed, narrows = _narrowed(new, cuts, blocks, base, statistics)
    check_moves(new, narrowed, moves)
    # Responses of what is narrower now are those of the fitted copy; all others are wanted as the original gave them.
    touched = _touched(base, narrows)
    reference = copied(new) if any(edit.layer in touched for edit in blocks) else model
    errors = put_blocks(reference, new, narrowed, blocks, transfer, progress, removed, refits=not narrows)
    merge_pairs(new, narrowed, [edit for edit in plan.edits if isinstance(edit, Merge)], transfer is not None)
    placed = capture_for(new, plan)
    done = counted(plan, base, narrowed, placed, errors, narrows)
    pairs = pairs_of(base, narrowed, model, new) if transfer is not None and transfer.steps else []
    move_units(new, placed, moves, starts_of(new, placed, moves, taken))
    prove(base, capture_for(new, plan) if moves else placed, done)
    return Applied(new, done, _refitted(pairs, transfer, progress) if transfer is not None and transfer.steps else None)


def _refitted(pairs: Sequence[Pair], transfer: Transfer, progress: Progress) -> Refit:
    """All weights refitted together, on the images that they were fitted to."""
    assert transfer.images is not None and transfer.judging is not None
    return refit_jointly(
        pairs, transfer.images, transfer.judging, transfer.steps, seed=transfer.seed, progress=progress
    )


def _narrowed(
    new: nn.Module,
    cuts: Sequence[Narrow],
    blocks: Sequence[Replace],
    base: Graph,
    statistics: Mapping[str, Statistics] | None,
) -> tuple[Graph, list[Narrow]]:
    """The model narrowed first: blocks are built for what is left, and units move as they are then."""
    if not cuts:
        return base, []
    graph, done = carry_out(new, base, cuts)
    both = sorted({edit.layer for edit in blocks}.intersection(_touched(base, done)))
    if both and statistics is not None:
        raise PlanError(
            f"{both[0]} is replaced and narrowed too: statistics of the whole layer do not fit what is left; give "
            "data, or take one of the two edits out."
        )
    return graph, done


def _touched(base: Graph, narrows: Sequence[Narrow]) -> set[str]:
    """The modules that narrowed groups are made, changed and read by."""
    widths = Widths.of(base) if narrows else None
    return set() if widths is None else {path for edit in narrows for path in widths.group(edit.group).modules}


def transfer_of(
    method: str | None,
    images: Pictures | None = None,
    statistics: Mapping[str, Statistics] | None = None,
    seed: int = 0,
    relu: bool | None = None,
    refit_steps: int = 0,
) -> Transfer | None:
    """How weights are carried when so much is told: see `apply`; None where they are not."""
    if relu and (images is None or method == "none"):
        raise PlanError(
            "A refit for the ReLU behind a layer needs images in order of execution; give data, and neither statistics "
            "nor the method none, or leave it out."
        )
    if refit_steps and (images is None or method == "none"):
        raise PlanError(
            f"refit_steps is {refit_steps}: a joint refit needs images; give data and no method none, or leave it out."
        )
    if refit_steps < 0:
        raise PlanError(f"refit_steps is {refit_steps}; give a number of steps, or 0 for none.")
    if method == "none":
        if images is not None or statistics is not None:
            raise PlanError("The method none carries no weights, so nothing is fitted; leave data out.")
        return None
    if not refit_steps or images is None:
        return Transfer(method, images, statistics, seed, relu is not False)
    fitted, judging = parted(images)
    return Transfer(method, fitted, statistics, seed, relu is not False, steps=refit_steps, judging=judging)
