"""Narrowed groups fitted to images before anything is cut: which channels stay, and the layers behind solved anew."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from convsmith.calibration.calibrate import calibrate
from convsmith.calibration.pictures import Pictures
from convsmith.calibration.selection import kept_of, mask, order_of, unread
from convsmith.graph import Graph
from convsmith.plan import Narrow
from convsmith.progress import Progress
from convsmith.rewriting.narrowing import checked
from convsmith.rewriting.weight_transfer import Transfer, put_blocks
from convsmith.structure.channel_groups import ChannelGroup
from convsmith.structure.widths import Widths


def fit_narrowed(
    original: nn.Module,
    model: nn.Module,
    graph: Graph,
    edits: Sequence[Narrow],
    transfer: Transfer,
    progress: Progress,
    removed: Sequence[tuple[str, ...]],
) -> list[Narrow]:
    """Have `model`, a copy of `original`, do without the channels that edits take, all that stays behind refitted.

    Weights that read these channels become zero, so that cutting them out changes nothing more. Groups that images
    cannot tell of, as something other than a convolution reads them, are left to the norms of their weights.

    Returns:
        The edits, with the channels that stay and the largest error of the layers that read them.
    """
    widths = Widths.of(graph)
    groups = {edit.group: widths.group(edit.group) for edit in edits}
    fitted = [edit for edit in edits if unread(graph, groups[edit.group]) is None]
    assert transfer.images is not None
    known = _chosen(original, graph, [(edit, groups[edit.group]) for edit in fitted], transfer.images, transfer.seed)
    masks: dict[str, Tensor] = {}
    for edit in known.values():
        for part in groups[edit.group].consumers:
            more = mask(part, edit.kept or ())
            masks[part.module] = masks[part.module] & more if part.module in masks else more
    errors = put_blocks(original, model, graph, [], transfer, progress, removed, masks)
    return [_told(known[edit.group], groups[edit.group], errors) if edit.group in known else edit for edit in edits]


def _chosen(
    model: nn.Module,
    graph: Graph,
    edits: Sequence[tuple[Narrow, ChannelGroup]],
    images: Pictures,
    seed: int,
) -> dict[tuple[str, ...], Narrow]:
    """By group the edits with the channels that stay: those given, or those that the readers miss most."""
    layers = [part.module for edit, group in edits if edit.kept is None for part in group.consumers]
    statistics = calibrate(model, images, list(dict.fromkeys(layers)), seed=seed) if layers else {}
    narrowed: dict[tuple[str, ...], Narrow] = {}
    for edit, group in edits:
        kept = edit.kept
        if kept is None:
            chosen = kept_of(group, order_of(model, graph, group, statistics)[0], edit.width)
            kept = chosen if len(chosen) == edit.width else None  # the width is no multiple of the sets: told later
        if kept is not None:
            narrowed[edit.group] = replace(edit, kept=tuple(checked(group, kept)))
    return narrowed


def _told(edit: Narrow, group: ChannelGroup, errors: Mapping[str, float | None]) -> Narrow:
    part_errors = [errors.get(part.module) for part in group.consumers]
    return replace(edit, error=max((error for error in part_errors if error is not None), default=None))
