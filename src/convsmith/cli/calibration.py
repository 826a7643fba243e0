"""What commands share that look at a user's images: loading them beside the model, and keeping statistics in a file."""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

from convsmith.algebra.second_moments import Statistics
from convsmith.calibration.calibrate import ROWS_PER_TAP, calibrate, load_statistics, save_statistics, take_images
from convsmith.calibration.pictures import Pictures
from convsmith.cli.terminal import Terminal
from convsmith.errors import ConvsmithError
from convsmith.graph import Graph
from convsmith.load import Loaded, Wish, load, load_with_data


def with_images(
    terminal: Terminal,
    reference: str,
    wish: Wish,
    weights: Path | None,
    data: str | None,
    count: int,
    seed: int,
    *,
    trust: bool = False,
) -> tuple[Loaded, Pictures | None]:
    """A model, and `count` calibration images (n, c, h, w) of the training split where data is named, which is told."""
    if data is None:
        loaded = load(reference, wish, weights=weights, trust=trust)
        terminal.notes(loaded.notes)
        return loaded, None
    loaded, found = load_with_data(reference, data, wish, weights=weights, trust=trust)
    terminal.step(found.summary)
    terminal.notes(loaded.notes)
    return loaded, take_images(found, count, seed)


def warn_of_weights(terminal: Terminal, loaded: Loaded, option: str = "--weights") -> None:
    """Say that what is fitted may be a fresh start: a net of one's own may come with weights, others do not."""
    if not loaded.origin.trained:
        terminal.step(f"{loaded.name}: no {option} given, so its weights are those it is built with")


def statistics_of(
    loaded: Loaded, images: Pictures | None, path: Path, layers: Sequence[str] | None, seed: int
) -> dict[str, Statistics]:
    """The moments kept in a file; worked out from the images and written where there is no file yet."""
    fingerprint = loaded.graph().fingerprint
    if path.is_file():
        return load_statistics(path, fingerprint)
    if images is None:
        raise ConvsmithError(f"{path}: no such file; give --data as well to have it made.")
    statistics = calibrate(loaded.model, images, layers, seed=seed)
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
    told = f"{of_all} ({least}: {few[least]:.1f}); on other images their errors are larger: give more --images"
    return [f"few positions to fit to: {told}"]
