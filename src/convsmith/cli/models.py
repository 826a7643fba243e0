"""The commands that make and judge models: apply, train, evaluate, export, bench."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from torch import nn

from convsmith.algebra import METHODS
from convsmith.calibrate import IMAGES
from convsmith.cli import options as opt
from convsmith.cli.calibration import statistics_of, with_images
from convsmith.cli.plans import told
from convsmith.cli.terminal import Terminal, told_in_one_line
from convsmith.data import Data
from convsmith.errors import ConvsmithError
from convsmith.load import Loaded, Wish, load, load_with_data, read_plan, save
from convsmith.optimize import RECOVERED, TRAINED, Evaluations, read_evaluations
from convsmith.plan import Replace
from convsmith.report import accuracy_table, bench_table, plan_table, read_net
from convsmith.rewrite import means_of, rewrite

MEASURED = ("top1", "top5", "loss", "images")
Recovery = Literal["weights", "bn"]


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
    json: opt.Json = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Make the new model, its weights carried over and fitted to your images."""
    terminal = Terminal(quiet=quiet, verbose=verbose, json=json)
    torch.manual_seed(seed)
    found = read_plan(plan)
    loaded, taken = with_images(model, Wish(input, classes, blocks_per_stage, mean, std), weights, data, images, seed)
    statistics = None
    if stats is not None:
        layers = [edit.layer for edit in found.edits if isinstance(edit, Replace)]
        statistics, taken = statistics_of(loaded, taken, stats, layers, seed), None
    applied = rewrite(loaded.model, found, means_of(method, taken, statistics, seed, relu))
    save(loaded.after(applied.model, applied.plan), out)
    terminal.show(plan_table(applied.plan), f"model: {out}")
    terminal.record(told(applied.plan))


@told_in_one_line
def train(
    model: opt.Reference,
    data: opt.DataSet,
    out: opt.Out,
    epochs: opt.Epochs = None,
    lr: Annotated[float | None, typer.Option(help="Largest learning rate.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images a step.")] = None,
    schedule: Annotated[str | None, typer.Option(help="one-cycle or cosine.")] = None,
    teacher: Annotated[str | None, typer.Option(metavar="MODEL", help="A trained model to learn from as well.")] = None,
    teacher_weights: Annotated[
        Path | None, typer.Option("--teacher-weights", metavar="FILE", help="The teacher's state dict.")
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels/--no-labels", help="Learn from labels too, or from the teacher alone.")
    ] = True,
    responses: Annotated[
        bool, typer.Option("--responses", help="Match the responses of replaced layers to the teacher's.")
    ] = False,
    recover: Annotated[
        Recovery, typer.Option(help="bn: estimate BatchNorm statistics anew, nothing else; weights: train.")
    ] = "weights",
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Go on with a run that was stopped.")] = True,
    weights: opt.Weights = None,
    input: opt.Input = None,
    classes: opt.Classes = None,
    blocks_per_stage: opt.Depths = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    seed: opt.Seed = 0,
    device: opt.Device = None,
    json: opt.Json = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Train a model, or recover one that has weights; stopped runs go on where they were."""
    from convsmith.train import recipe_for, recovery_for
    from convsmith.train import train as fit

    terminal = Terminal(quiet=quiet, verbose=verbose, json=json)
    torch.manual_seed(seed)
    wish = Wish(input, classes, blocks_per_stage, mean, std)
    loaded, images = load_with_data(model, data, wish, weights=weights)
    helper = load(teacher, Wish(images.shape, len(images.classes)), weights=teacher_weights).model if teacher else None
    if recover == "bn":
        _recover_norms(terminal, loaded, images, helper, out, seed, device)
        return
    if helper is None and (responses or not labels):
        raise ConvsmithError("train: there is no teacher to learn from; give --teacher MODEL.")
    given: dict[str, Any] = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "schedule": schedule}
    changes = {name: value for name, value in given.items() if value is not None}
    if not labels:
        changes["teacher_weight"] = 1.0
    recipe = (recovery_for if loaded.origin.trained else recipe_for)(images, seed=seed, device=device, **changes)
    matched = [e.layer for plan in loaded.plans for e in plan.edits if isinstance(e, Replace)] if responses else []

    def watch(epoch: Any) -> None:
        terminal.epoch(loaded.name, recipe.epochs, epoch)

    log = Evaluations(images, device, read_evaluations(loaded.folder) if loaded.folder else ())
    if loaded.origin.trained:
        log.begin(loaded, helper)
    history = fit(
        loaded.model, images, recipe, out=out, resume=resume, teacher=helper, responses=matched, progress=watch
    )
    log.finish(RECOVERED if loaded.origin.trained else TRAINED, history.final)
    log.write(out)
    save(loaded.trained_on(images.mean, images.std), out)
    terminal.show(accuracy_table(read_net(out)), f"model: {out}")
    terminal.record(asdict(history))


def _recover_norms(
    terminal: Terminal,
    loaded: Loaded,
    images: Data,
    teacher: nn.Module | None,
    out: Path,
    seed: int,
    device: str | None,
) -> None:
    from convsmith.train import reestimate_norms

    log = Evaluations(images, device, read_evaluations(loaded.folder) if loaded.folder else ())
    log.begin(loaded, teacher)
    found = reestimate_norms(loaded.model, images, teacher=teacher, seed=seed, device=device)
    log.renormed(loaded.model, found.kept)
    log.write(out)
    save(loaded.trained_on(images.mean, images.std), out)
    verdict = "kept" if found.kept else "worse on held-out images, so the old ones stay"
    told = f"statistics: {verdict} (loss {found.before:.4g} -> {found.after:.4g})"
    terminal.show(accuracy_table(read_net(out)), told, f"model: {out}")
    before, after = ({name: asdict(each)[name] for name in MEASURED} for each in log.told[-2:])
    terminal.record({"before": before, "final": after, "kept": found.kept})


@told_in_one_line
def evaluate(
    model: opt.Reference,
    data: opt.DataSet,
    weights: opt.Weights = None,
    input: opt.Input = None,
    classes: opt.Classes = None,
    blocks_per_stage: opt.Depths = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    device: opt.Device = None,
    json: opt.Json = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Measure accuracy and loss on the test split."""
    from convsmith.train import evaluate as measure

    terminal = Terminal(quiet=quiet, verbose=verbose, json=json)
    wish = Wish(input, classes, blocks_per_stage, mean, std)
    loaded, images = load_with_data(model, data, wish, weights=weights)
    result = asdict(measure(loaded.model, images.test, device=device))
    terminal.show(_accuracy(result))
    terminal.record(result)


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
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Write files for other runtimes, each checked against the model."""
    from convsmith.export import export as write

    terminal = Terminal(quiet=quiet, verbose=verbose, json=json)
    torch.manual_seed(seed)
    loaded = load(model, Wish(input, classes, blocks_per_stage), weights=weights)
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
    batches: Annotated[str, typer.Option(metavar="1,32", help="Batch sizes.")] = "1,32",
    runtimes: Annotated[str | None, typer.Option(metavar="eager,onnxruntime", help="Runtimes (default: all).")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    seed: opt.Seed = 0,
    json: opt.Json = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Measure latency, the models in turn; the first is what the others are compared with."""
    from convsmith.bench import bench as measure

    terminal = Terminal(quiet=quiet, verbose=verbose, json=json)
    torch.manual_seed(seed)
    loaded = {name: _measurable(name, Wish(input, classes)) for name in models}
    shapes = {net.origin.input for net in loaded.values() if isinstance(net, Loaded)} or {input}
    if len(shapes) > 1 or None in shapes:
        raise ConvsmithError(f"bench: got input shapes {shapes}; give --input C,H,W, the same for all.")
    nets: dict[str, nn.Module | Path] = {
        name: net.model if isinstance(net, Loaded) else net for name, net in loaded.items()
    }
    choice: dict[str, Any] = {"runtimes": tuple(runtimes.split(","))} if runtimes else {}
    sizes = tuple(int(size) for size in batches.split(","))
    result = measure(
        nets, input=shapes.pop(), batches=sizes, threads=threads, seed=seed, progress=terminal.step, **choice
    )
    terminal.show(bench_table(result))
    terminal.record(result.to_dict())


def _measurable(reference: str, wish: Wish) -> Loaded | Path:
    path = Path(reference)
    return path if path.suffix in (".onnx", ".pt2") and path.is_file() else load(reference, wish)


def _accuracy(result: dict[str, Any]) -> str:
    return (
        f"top-1 {100 * result['top1']:.2f} %  top-5 {100 * result['top5']:.2f} %  "
        f"loss {result['loss']:.4f}  {result['images']} images"
    )
