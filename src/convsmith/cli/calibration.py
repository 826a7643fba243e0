"""What commands share that look at a user's images: loading them beside the model, and keeping statistics in a file."""

from collections.abc import Mapping, Sequence
from inspect import Parameter, signature
from math import prod
from pathlib import Path

from torch import nn

from convsmith.algebra.second_moments import Statistics
from convsmith.blocks import parse_block
from convsmith.calibration.calibrate import ROWS_PER_TAP, calibrate, take_images
from convsmith.calibration.pictures import Pictures
from convsmith.calibration.sharing import of_first
from convsmith.calibration.statistics_file import load_statistics, save_statistics
from convsmith.cli.groups import Calibrating, Judging, Reading
from convsmith.cli.terminal import Terminal
from convsmith.errors import ConvsmithError
from convsmith.graph import Graph
from convsmith.load import Loaded
from convsmith.plan import Plan, Replace
from convsmith.torchrun import rank

NAMED = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def with_images(
    terminal: Terminal,
    reference: str,
    form: Reading,
    calibrating: Calibrating | Judging,
    seed: int,
    plan: Plan | None = None,
) -> tuple[Loaded, Pictures | None]:
    """A model, and calibration images (n, c, h, w) of the training split where data is named, which is told."""
    if calibrating.data is None:
        return form.load(terminal, reference), None
    loaded, data = form.load_with(terminal, reference, calibrating.data)
    refuse_several(reference, loaded.model, plan)
    return loaded, take_images(data, calibrating.images, seed, len(loaded.origin.input) - 1)


def refuse_several(reference: str, model: nn.Module, plan: Plan | None) -> None:
    """Say where data for a net of several inputs can be given; raises ConvsmithError on such a net."""
    arguments = signature(model.forward).parameters.values()
    needed = [argument.name for argument in arguments if argument.default is Parameter.empty and argument.kind in NAMED]
    if len(needed) > 1 or (plan is not None and plan.call is not None):
        inputs = f"several inputs ({', '.join(needed)})" if len(needed) > 1 else "more than one image"
        raise ConvsmithError(
            f"{reference}: takes {inputs}, and --data gives images alone; from Python cs.decompose and cs.apply take "
            "data= as batches, each a tuple or a dictionary of the inputs."
        )


def warn_of_weights(terminal: Terminal, loaded: Loaded, option: str = "--weights") -> None:
    """Say that what is fitted may be a fresh start: a net of one's own may come with weights, others do not."""
    if not loaded.origin.trained:
        terminal.step(f"{loaded.name}: no {option} given, so its weights are those it is built with")


def statistics_of(
    terminal: Terminal,
    loaded: Loaded,
    images: Pictures | None,
    path: Path | None,
    layers: Sequence[str] | None,
    seed: int,
) -> dict[str, Statistics] | None:
    """The moments kept in a file; worked out from the images and written where there is no file yet.

    None where no file is named.
    """
    if path is None:
        return None
    fingerprint = loaded.graph().fingerprint
    kept = of_first(lambda: load_statistics(path, fingerprint) if path.is_file() else None)
    if kept is not None:
        return kept
    if images is None:
        raise ConvsmithError(f"{path}: no such file; give --data as well to have it made.")
    statistics = calibrate(loaded.model, images, layers, seed=seed, progress=terminal.progress)
    if rank() == 0:
        save_statistics(path, statistics, fingerprint)
    return statistics


def few_positions(
    graph: Graph, layers: Sequence[str], images: Pictures | None, statistics: Mapping[str, Statistics] | None
) -> list[str]:
    """A sentence on layers of which images, or statistics, show fewer positions than a fit would take."""
    shares = {}
    for node in (node for node in graph.nodes if node.module in layers):
        seen = (
            statistics[node.module].samples
            if statistics
            else (0 if images is None else len(images)) * prod(node.call.out[2:])
        )
        spec = node.conv_spec()
        assert spec is not None
        shares[node.module] = seen / (spec.in_channels * prod(spec.kernel))
    few = {layer: share for layer, share in shares.items() if share < ROWS_PER_TAP}
    if not few:
        return []
    least = min(few, key=few.__getitem__)
    of_all = f"{len(few)} of {len(layers)} layers had fewer than {ROWS_PER_TAP} for each number of a patch"
    sentence = f"{of_all} ({least}: {few[least]:.1f}); on other images their errors are larger: give more --images"
    return [f"few positions to fit to: {sentence}"]


def layers_to_fit(plan: Plan) -> list[str]:
    """The layers of a plan whose blocks take weights over."""
    replaced = [edit for edit in plan.edits if isinstance(edit, Replace)]
    return [edit.layer for edit in replaced if parse_block(edit.block).fitted]


def fits_of(
    loaded: Loaded, plan: Plan, images: Pictures | None, statistics: Mapping[str, Statistics] | None
) -> list[str]:
    """What the errors of a plan's layers are relative to, and by what they could be less, or truer."""
    fitted = [edit.layer for edit in plan.edits if isinstance(edit, Replace) and edit.error is not None]
    if not fitted:
        return []
    if images is None and statistics is None:
        return ["errors: of each layer's weight; --data fits to what the layer answers to images instead"]
    alone = ", each layer fitted alone to the statistics; --data without --stats fits in order"
    few = few_positions(loaded.graph(), fitted, images, statistics)
    return [f"errors: of responses{alone if statistics is not None else ''}", *few]
