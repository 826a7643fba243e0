"""The commands that make new models and files of them, and measure those: apply, export, bench."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convsmith.cli import options as opt
from convsmith.cli.groups import Calibrating, Form, Place, Reading, command
from convsmith.cli.plans import told
from convsmith.cli.terminal import Terminal
from convsmith.errors import ConvsmithError
from convsmith.torchrun import rank

if TYPE_CHECKING:  # takes seconds to import
    from convsmith.load import Loaded
    from convsmith.plan import Plan


@command("convsmith apply resnet20 plan.json --data digits --out runs/new", "docs/decomposition.md")
def apply(
    terminal: Terminal,
    model: opt.Reference,
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="What organize or decompose wrote.")],
    out: opt.Out,
    form: Reading,
    calibrating: Calibrating,
    place: Place,
    weights: opt.Weights = None,
    method: opt.Method = None,
    relu: Annotated[
        bool | None,
        typer.Option("--relu/--no-relu", help="Refit each block for the ReLU behind it (default: with --data)."),
    ] = None,
) -> None:
    """Make the new model, its weights carried over and fitted to your images."""
    terminal.progress(f"loading {model}", 0, 1)
    import torch

    from convsmith.cli.calibration import fits_of, layers_to_fit, statistics_of, warn_of_weights, with_images
    from convsmith.load import read_plan, save
    from convsmith.report import plan_table
    from convsmith.rewriting.apply import rewrite
    from convsmith.train import at_work, check_alone

    torch.manual_seed(place.seed)
    if calibrating.data is None:
        check_alone("apply without --data")
    _free(model, out)
    found = read_plan(plan)
    loaded, taken = with_images(terminal, model, form, weights, calibrating, place.seed, found)
    if method != "none" and (calibrating.data or method):
        warn_of_weights(terminal, loaded)
    with at_work(loaded.model, place.device):
        statistics = statistics_of(terminal, loaded, taken, calibrating.stats, layers_to_fit(found), place.seed)
        taken = None if statistics is not None else taken
        applied = rewrite(
            loaded.model, found, method=method, data=taken, images=calibrating.images, statistics=statistics,
            seed=place.seed, relu=relu, progress=terminal.progress,
        )  # fmt: skip
    if rank() == 0:
        save(loaded.after(applied.model, applied.plan), out)
    notes = [*fits_of(loaded, applied.plan, taken, statistics), *_better(found, calibrating.data)]
    terminal.show(plan_table(applied.plan), *notes, f"model: {out}")
    terminal.record(told(applied.plan))


def _better(plan: "Plan", data: str | None) -> list[str]:
    """That images were at hand, but the plan was made without them."""
    blind = data is not None and plan.asked is not None and plan.asked.limited and plan.asked.by == "costs"
    return ["the plan's ranks followed costs alone; `convsmith decompose --data` decides better"] if blind else []


def _free(reference: str, out: Path) -> None:
    """Refuse to write over the model itself, and over what training or a whole run has left."""
    from convsmith.load import holds_model
    from convsmith.optimize import EVALUATIONS, RUN
    from convsmith.train import RECORDS

    left = [name for name in (RUN, EVALUATIONS, *RECORDS) if (out / name).exists()]
    if left or (holds_model(out) and Path(reference).resolve() == out.resolve()):
        what = f"holds a net that was trained or judged ({left[0]})" if left else "is the folder of the model itself"
        raise ConvsmithError(f"{out}: {what}; choose another folder, or remove it.")


@command("convsmith export runs/new --format onnx,pt2", "docs/cli.md")
def export(
    terminal: Terminal,
    model: opt.Reference,
    form: Form,
    format: opt.Formats = "onnx,pt2",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Folder to write (default: the model's).")
    ] = None,
    weights: opt.Weights = None,
    seed: opt.Seed = 0,
) -> None:
    """Write files for other runtimes, each checked against the model."""
    terminal.progress(f"loading {model}", 0, 1)
    import torch

    from convsmith.export import export as write
    from convsmith.load import load

    torch.manual_seed(seed)
    loaded = load(model, form.wish(), weights=weights, trust=form.trust)
    terminal.notes(loaded.notes)
    folder = out or loaded.folder
    if folder is None:
        raise ConvsmithError(f"{model}: is no folder to write next to; give --out DIR.")
    checks: list[dict[str, Any]] = []
    suffixes = [suffix.strip() for suffix in format.split(",")]
    for suffix in suffixes:
        terminal.progress(f"exporting model.{suffix}", len(checks), len(suffixes))
        check = write(loaded.model, folder / f"model.{suffix}", input=loaded.origin.input, seed=seed)
        terminal.show(f"{check.path}: {check.bytes / 1e6:.2f} MB, largest relative error {check.max_rel_error:.1e}")
        checks.append(asdict(check) | {"path": str(check.path)})
    terminal.record(checks)


@command("convsmith bench runs/old runs/new --batches 1,32", "docs/cli.md")
def bench(
    terminal: Terminal,
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL [MODEL ..]", help="Models, folders, .onnx or .pt2 files.")
    ],
    input: opt.Input = None,
    classes: opt.Classes = None,
    batches: opt.Batches = None,
    runtimes: opt.Runtimes = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    seed: opt.Seed = 0,
    trust: opt.Trust = False,
) -> None:
    """Measure latency, the models in turn; the first is what the others are compared with."""
    terminal.progress(f"loading {models[0]}", 0, 1)
    import torch

    from convsmith.bench import bench as measure
    from convsmith.bench import precision_of
    from convsmith.load import Loaded
    from convsmith.report import bench_table

    torch.manual_seed(seed)
    loaded = {name: _measurable(terminal, name, Form(input, classes, trust=trust)) for name in models}
    shapes = {net.origin.input for net in loaded.values() if isinstance(net, Loaded)} or {input}
    if len(shapes) > 1:
        raise ConvsmithError(f"bench: got input shapes {shapes}; give --input C,H,W, the same for all.")
    nets = {name: net.model if isinstance(net, Loaded) else net for name, net in loaded.items()}
    choice: dict[str, Any] = {"runtimes": tuple(runtimes.split(","))} if runtimes else {}
    result = measure(
        nets, input=shapes.pop(), batches=batches, threads=threads, seed=seed, trust=trust, progress=terminal.progress,
        **choice,
    )  # fmt: skip
    terminal.show(bench_table(result))
    terminal.record(result.rows({name: precision_of(net) for name, net in nets.items()}))
    if not result.cells:
        skip = result.skipped[0]
        raise ConvsmithError(f"bench: nothing was measured; {skip.model} in {skip.runtime}: {skip.reason}.")


def _measurable(terminal: Terminal, reference: str, form: Form) -> "Loaded | Path":
    from convsmith.load import load

    path = Path(reference)
    if path.suffix in (".onnx", ".pt2") and path.is_file():
        return path
    loaded = load(reference, form.wish(), trust=form.trust)
    terminal.notes(loaded.notes)
    return loaded
