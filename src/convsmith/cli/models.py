"""The commands that make new models and files of them, and measure those: apply, export, bench."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from convsmith.algebra import METHODS
from convsmith.blocks import parse_block
from convsmith.calibration.calibrate import IMAGES
from convsmith.cli import options as opt
from convsmith.cli.calibration import few_positions, statistics_of, warn_of_weights, with_images
from convsmith.cli.plans import told
from convsmith.cli.terminal import Terminal, told_in_one_line
from convsmith.errors import ConvsmithError
from convsmith.load import Loaded, Wish, holds_model, load, read_plan, save
from convsmith.plan import Plan, Replace
from convsmith.report import bench_table, plan_table
from convsmith.rewriting.apply import rewrite


@told_in_one_line
def apply(
    model: opt.Reference,
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="What organize or decompose wrote.")],
    out: opt.Out,
    weights: opt.Weights = None,
    data: opt.Calibration = None,
    images: opt.Images = IMAGES,
    stats: opt.Stats = None,
    method: Annotated[
        str | None, typer.Option(help=f"{', '.join(METHODS)} or none (default: the best for the block).")
    ] = None,
    relu: Annotated[
        bool | None,
        typer.Option("--relu/--no-relu", help="Refit each block for the ReLU behind it (default: with --data)."),
    ] = None,
    input: opt.Input = None,
    classes: opt.Classes = None,
    blocks_per_stage: opt.Depths = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    seed: opt.Seed = 0,
    device: opt.Device = None,
    json: opt.Json = None,
    trust: opt.Trust = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Make the new model, its weights carried over and fitted to your images."""
    from convsmith.train import lent, pick_device

    terminal = Terminal(quiet=quiet, verbose=verbose, json=json)
    torch.manual_seed(seed)
    _free(model, out)
    found = read_plan(plan)
    wish = Wish(input, classes, blocks_per_stage, mean, std)
    loaded, taken = with_images(terminal, model, wish, weights, data, images, seed, trust=trust)
    if method != "none" and (data or method):
        warn_of_weights(terminal, loaded)
    statistics = None
    with lent(loaded.model, pick_device(device)):
        if stats is not None:
            replaced = [edit for edit in found.edits if isinstance(edit, Replace)]
            layers = [edit.layer for edit in replaced if parse_block(edit.block).fitted]
            statistics, taken = statistics_of(loaded, taken, stats, layers, seed), None
        applied = rewrite(
            loaded.model, found, method=method, data=taken, images=images, statistics=statistics, seed=seed,
            relu=relu, progress=terminal.progress,
        )  # fmt: skip
    save(loaded.after(applied.model, applied.plan), out)
    terminal.show(plan_table(applied.plan), *_of_what(loaded, applied.plan, taken, statistics), f"model: {out}")
    terminal.record(told(applied.plan))


def _of_what(loaded: Loaded, plan: Plan, images: Any, statistics: Any) -> list[str]:
    """What the errors of a plan's layers are relative to, and by what they could be less, or truer."""
    fitted = [edit.layer for edit in plan.edits if isinstance(edit, Replace) and edit.error is not None]
    if not fitted:
        return []
    if images is None and statistics is None:
        return ["errors: of weights; --data fits responses instead"]
    alone = ", each layer fitted alone to the statistics; --data without --stats fits in order"
    few = few_positions(loaded.graph(), fitted, images, statistics)
    return [f"errors: of responses{alone if statistics is not None else ''}", *few]


def _free(reference: str, out: Path) -> None:
    """Refuse to write over the model itself, and over what training or a whole run has left."""
    from convsmith.optimize import EVALUATIONS, RUN
    from convsmith.train import RECORDS

    left = [name for name in (RUN, EVALUATIONS, *RECORDS) if (out / name).exists()]
    if left or (holds_model(out) and Path(reference).resolve() == out.resolve()):
        what = f"holds a net that was trained or judged ({left[0]})" if left else "is the folder of the model itself"
        raise ConvsmithError(f"{out}: {what}; choose another folder, or remove it.")


@told_in_one_line
def export(
    model: opt.Reference,
    format: opt.Formats = "onnx,pt2",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder to write (default: the model's).")
    ] = None,
    weights: opt.Weights = None,
    input: opt.Input = None,
    classes: opt.Classes = None,
    blocks_per_stage: opt.Depths = None,
    seed: opt.Seed = 0,
    json: opt.Json = None,
    trust: opt.Trust = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Write files for other runtimes, each checked against the model."""
    from convsmith.export import export as write

    terminal = Terminal(quiet=quiet, verbose=verbose, json=json)
    torch.manual_seed(seed)
    loaded = load(model, Wish(input, classes, blocks_per_stage), weights=weights, trust=trust)
    terminal.notes(loaded.notes)
    folder = out or loaded.folder
    if folder is None:
        raise ConvsmithError(f"{model}: is no folder to write next to; give --out DIR.")
    checks = []
    for suffix in format.split(","):
        check = write(loaded.model, folder / f"model.{suffix.strip()}", input=loaded.origin.input, seed=seed)
        terminal.show(f"{check.path}: {check.bytes / 1e6:.2f} MB, largest relative error {check.max_rel_error:.1e}")
        checks.append(asdict(check) | {"path": str(check.path)})
    terminal.record(checks)


@told_in_one_line
def bench(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL [MODEL ..]", help="Models, folders, .onnx or .pt2 files.")
    ],
    input: opt.Input = None,
    classes: opt.Classes = None,
    batches: opt.Batches = None,
    runtimes: Annotated[str | None, typer.Option(metavar="eager,onnxruntime", help="Runtimes (default: all).")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    seed: opt.Seed = 0,
    json: opt.Json = None,
    trust: opt.Trust = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Measure latency, the models in turn; the first is what the others are compared with."""
    from convsmith.bench import bench as measure

    terminal = Terminal(quiet=quiet, verbose=verbose, json=json)
    torch.manual_seed(seed)
    loaded = {name: _measurable(name, Wish(input, classes), trust) for name in models}
    shapes = {net.origin.input for net in loaded.values() if isinstance(net, Loaded)} or {input}
    if len(shapes) > 1:
        raise ConvsmithError(f"bench: got input shapes {shapes}; give --input C,H,W, the same for all.")
    nets: dict[str, nn.Module | Path] = {
        name: net.model if isinstance(net, Loaded) else net for name, net in loaded.items()
    }
    choice: dict[str, Any] = {"runtimes": tuple(runtimes.split(","))} if runtimes else {}
    result = measure(
        nets,
        input=shapes.pop(),
        batches=batches,
        threads=threads,
        seed=seed,
        progress=terminal.step,
        trust=trust,
        **choice,
    )
    terminal.show(bench_table(result))
    terminal.record(result.to_dict())
    if not result.cells:
        skip = result.skipped[0]
        raise ConvsmithError(f"bench: nothing was measured; {skip.model} in {skip.runtime}: {skip.reason}.")


def _measurable(reference: str, wish: Wish, trust: bool) -> Loaded | Path:
    path = Path(reference)
    return path if path.suffix in (".onnx", ".pt2") and path.is_file() else load(reference, wish, trust=trust)
