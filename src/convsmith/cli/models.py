"""The commands that make new models and files of them, and measure those: apply, export, bench."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convsmith.cli import options as opt
from convsmith.cli.groups import Calibrating, Form, Place, Quantizing, Reading, command
from convsmith.cli.plans import told
from convsmith.cli.terminal import Terminal
from convsmith.errors import ConvsmithError
from convsmith.locks import owned
from convsmith.torchrun import rank

if TYPE_CHECKING:  # takes seconds to import
    from convsmith.data import Data
    from convsmith.export import ExportCheck
    from convsmith.graph.signature import Shapes
    from convsmith.load import Loaded
    from convsmith.plan import Plan


@command("convsmith apply resnet20 plan.json --data digits --out runs/new", "docs/decomposition.md")
def apply(
    terminal: Terminal,
    model: opt.Reference,
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="What organize or decompose wrote.")],
    out: opt.Out,
    calibrating: Calibrating,
    form: Reading,
    place: Place,
    method: opt.Method = None,
    relu: Annotated[
        bool | None,
        typer.Option("--relu/--no-relu", help="Refit each block for the ReLU behind it (default: with --data)."),
    ] = None,
    refit_steps: opt.RefitSteps = 0,
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
    loaded, taken = with_images(terminal, model, form, calibrating, place.seed, found)
    if method != "none" and (calibrating.data or method):
        warn_of_weights(terminal, loaded)
    with at_work(loaded.model, place.device):
        statistics = statistics_of(terminal, loaded, taken, calibrating.stats, layers_to_fit(found), place.seed)
        taken = None if statistics is not None else taken
        applied = rewrite(
            loaded.model, found, method=method, data=taken, images=calibrating.images, statistics=statistics,
            seed=place.seed, relu=relu, refit_steps=refit_steps, progress=terminal.progress,
        )  # fmt: skip
    if rank() == 0:
        save(loaded.after(applied.model, applied.plan), out)
    notes = [*fits_of(loaded, applied.plan, taken, statistics), *_better(found, calibrating.data)]
    notes += [applied.refit.line] if applied.refit else []
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


@command("convsmith export runs/new --int8 --data digits", "docs/export.md")
def export(
    terminal: Terminal,
    model: opt.Reference,
    quantizing: Quantizing,
    form: Reading,
    format: opt.Formats = "onnx,pt2",
    out: opt.OutOrModels = None,
    seed: opt.Seed = 0,
) -> None:
    """Write files for other runtimes, each checked against the model.

    With --int8, layers that cause most of the output's error stay in float. Accuracy is told where data has labels.
    """
    if quantizing.int8 != (quantizing.data is not None):
        raise ConvsmithError("export: --int8 and --data go together; give both, or leave both out.")
    terminal.progress(f"loading {model}", 0, 1)
    import torch

    from convsmith.export import INT8, files_of, keep_record

    torch.manual_seed(seed)
    if quantizing.data is None:
        loaded, data = form.load(terminal, model), None
    else:
        loaded, data = form.load_with(terminal, model, quantizing.data)
    folder = out or loaded.folder
    if folder is None:
        raise ConvsmithError(f"{model}: is no folder to write next to; give --out DIR.")
    files = [*files_of(format.split(",")), *([INT8] if quantizing.int8 else [])]
    with owned(folder):
        checks = _written(terminal, loaded, data, [folder / name for name in files], quantizing.images, seed)
        keep_record(checks, folder)
    terminal.record([check.to_dict() for check in checks])


def _written(
    terminal: Terminal, loaded: "Loaded", data: "Data | None", paths: Sequence[Path], images: int, seed: int
) -> list["ExportCheck"]:
    """Write files one after another, and show how each was checked; the data is for those of 8 bits."""
    from convsmith.export import INT8
    from convsmith.export import export as write

    about = loaded.metadata()
    if data is not None and data.names is not None:
        about.setdefault("class_names", json.dumps(data.names))
    checks: list[ExportCheck] = []
    for number, path in enumerate(paths):
        terminal.progress(f"exporting {path.name}", number, len(paths))
        check = write(
            loaded.model, path, input=loaded.origin.shapes, seed=seed, progress=terminal.progress,
            int8=data if path.name == INT8 else None, images=images, metadata=about,
        )  # fmt: skip
        terminal.show(check.line)
        checks.append(check)
    return checks


@command("convsmith bench runs/old runs/new --batches 1,32", "docs/cli.md")
def bench(
    terminal: Terminal,
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL [MODEL ..]", help="Models, folders, .onnx or .pt2 files.")
    ],
    form: Form,
    batches: opt.Batches = None,
    runtimes: opt.Runtimes = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    seed: opt.Seed = 0,
) -> None:
    """Measure latency, the models in turn; the first is what the others are compared with.

    The int8 files of folders are measured beside them.
    """
    terminal.progress(f"loading {models[0]}", 0, 1)
    import torch

    from convsmith.bench import bench as measure
    from convsmith.bench import precision_of
    from convsmith.export import INT8
    from convsmith.load import Loaded
    from convsmith.report import bench_table, quantize_only, read_net

    torch.manual_seed(seed)
    loaded = {name: _measurable(terminal, name, form) for name in models}
    nets = {name: net.model if isinstance(net, Loaded) else net for name, net in loaded.items()}
    folders = {name: net.folder for name, net in loaded.items() if isinstance(net, Loaded) and net.folder}
    small = {name: folder / INT8 for name, folder in folders.items() if (folder / INT8).is_file()}
    choice: dict[str, Any] = {"runtimes": tuple(runtimes.split(","))} if runtimes else {}
    result = measure(
        nets, input=_shape(loaded.values(), form.input), batches=batches, threads=threads, seed=seed, trust=form.trust,
        progress=terminal.progress, int8=small, **choice,
    )  # fmt: skip
    terminal.show(bench_table(result))
    if len(small) > 1:
        first, second, *_ = small
        terminal.show(*quantize_only(result, read_net(folders[first]), read_net(folders[second]), (first, second)))
    terminal.record(result.rows({name: precision_of(net) for name, net in nets.items()}))
    if not result.cells:
        skip = result.skipped[0]
        raise ConvsmithError(f"bench: nothing was measured; {skip.model} in {skip.runtime}: {skip.reason}.")


def _measurable(terminal: Terminal, reference: str, form: Form) -> "Loaded | Path":
    path = Path(reference)
    return path if path.suffix in (".onnx", ".pt2") and path.is_file() else form.load(terminal, reference)


def _shape(loaded: Iterable["Loaded | Path"], asked: "Shapes | None") -> "Shapes | None":
    """The input of all models; raises ConvsmithError where they read several."""
    built: list[Shapes | None] = [net.origin.shapes for net in loaded if not isinstance(net, Path)]
    shapes = built or [asked]
    if other := [shape for shape in shapes if shape != shapes[0]]:
        raise ConvsmithError(f"bench: got inputs {shapes[0]} and {other[0]}; give --input C,H,W, the same for all.")
    return shapes[0]
