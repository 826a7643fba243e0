"""The commands that train nets and judge them: train, evaluate."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from torch import nn

from convsmith.cli import options as opt
from convsmith.cli.calibration import warn_of_weights
from convsmith.cli.terminal import Terminal, told_in_one_line
from convsmith.data import Data
from convsmith.errors import ConvsmithError
from convsmith.load import Loaded, Wish, check_own, load, load_with_data, save
from convsmith.locks import owned
from convsmith.optimize import RECOVERED, TRAINED, Evaluations, read_evaluations
from convsmith.plan import Replace
from convsmith.report import accuracy_table, falls, rate_line, read_net
from convsmith.train import check_alone, count, joined, rank

MEASURED = ("top1", "top5", "loss", "images")
Recovery = Literal["weights", "bn"]


@told_in_one_line
def train(
    model: opt.Reference,
    data: opt.DataSet,
    out: opt.Out,
    epochs: opt.Epochs = None,
    lr: opt.Rate = None,
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
    sync_bn: Annotated[
        bool, typer.Option("--sync-bn", help="Under torchrun, BatchNorm over the images of all processes.")
    ] = False,
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
    trust: opt.Trust = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Train a model, or recover one that has weights; stopped runs go on where they were."""
    terminal = Terminal(quiet=quiet, verbose=verbose, json=json)
    torch.manual_seed(seed)
    wish = Wish(input, classes, blocks_per_stage, mean, std)
    loaded, images = load_with_data(model, data, wish, weights=weights, trust=trust)
    terminal.step(images.summary)
    terminal.notes(loaded.notes)
    helper = None
    if teacher:
        own = Wish(images.shape, len(images.classes))
        told_by = load(teacher, own, weights=teacher_weights, trust=trust)
        terminal.notes(told_by.notes)
        warn_of_weights(terminal, told_by, "--teacher-weights")
        helper = told_by.model
    if recover == "bn":
        check_alone("train --recover bn")
        _recover_norms(terminal, loaded, images, helper, out, seed, device)
        return
    if helper is None and (responses or not labels):
        raise ConvsmithError("train: there is no teacher to learn from; give --teacher MODEL.")
    told: dict[str, Any] = {
        "epochs": epochs, "lr": lr, "batch_size": batch_size, "schedule": schedule,
        "teacher_weight": None if labels else 1.0, "sync_norms": sync_bn or None,
    }  # fmt: skip
    changes = {name: value for name, value in told.items() if value is not None}
    matched = [e.layer for plan in loaded.plans for e in plan.edits if isinstance(e, Replace)] if responses else []
    _train(terminal, loaded, images, helper, matched, out, resume, {"seed": seed, "device": device, **changes})


def _train(
    terminal: Terminal,
    loaded: Loaded,
    images: Data,
    teacher: nn.Module | None,
    matched: Sequence[str],
    out: Path,
    resume: bool,
    changes: Mapping[str, Any],
) -> None:
    from convsmith.train import digest, recipe_for, recovery_for, train

    trained = loaded.origin.trained
    recipe = (recovery_for if trained else recipe_for)(images, **changes)

    def watch(epoch: Any) -> None:
        """Tell of an epoch as soon as it is over."""
        terminal.epoch(loaded.name, recipe.epochs, epoch)

    log = Evaluations(images, recipe.device, read_evaluations(loaded.folder) if loaded.folder else ())
    with _for_us(out):
        if trained and rank() == 0:
            log.begin(loaded, teacher)
        # In its own folder a net takes the run's weights when that is over.
        start = digest(loaded.model) if trained and not _in_place(loaded, out) else ""
        history = train(
            loaded.model, images, recipe, out=out, resume=resume, teacher=teacher, responses=matched, start=start,
            progress=watch, told=lambda found: terminal.step(rate_line(found)),
        )  # fmt: skip
        if rank() == 0:
            log.finish(RECOVERED if trained else TRAINED, history.final, kept=history.kept != 0)
            _keep(terminal, loaded, images, log, out)
    terminal.record(asdict(history))


def _keep(terminal: Terminal, loaded: Loaded, images: Data, log: Evaluations, out: Path, *told: str) -> None:
    """Write a net and its evaluations, and tell of them."""
    save(loaded.trained_on(images.mean, images.std), out)
    log.write(out)
    net = read_net(out)
    terminal.show(accuracy_table(net), *told, f"model: {out}")
    terminal.warn(*falls(net))


@contextmanager
def _for_us(out: Path) -> Iterator[None]:
    """Have a folder that is to hold a net, and nothing of another program in its place; of all processes, the first."""
    if rank() > 0:
        yield
        return
    with owned(out):
        check_own(out)
        read_evaluations(out)
        yield


def _in_place(loaded: Loaded, out: Path) -> bool:
    return loaded.folder is not None and loaded.folder.resolve() == out.resolve()


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
    with _for_us(out):
        log.begin(loaded, teacher)
        found = reestimate_norms(loaded.model, images, teacher=teacher, seed=seed, device=device)
        log.renormed(loaded.model, found.kept)
        verdict = "kept" if found.kept else "worse on held-out images, so the old ones stay"
        told = f"statistics: {verdict} (loss {found.before:.4g} -> {found.after:.4g})"
        _keep(terminal, loaded, images, log, out, told)
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
    trust: opt.Trust = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Measure accuracy and loss on the test split."""
    from convsmith.train import evaluate as measure

    terminal = Terminal(quiet=quiet, verbose=verbose, json=json)
    torch.manual_seed(0)  # a net without weights is the same in every process
    wish = Wish(input, classes, blocks_per_stage, mean, std)
    loaded, images = load_with_data(model, data, wish, weights=weights, trust=trust)
    terminal.step(images.summary)
    terminal.notes(loaded.notes)
    among = joined(device) if count() > 1 else None
    result = asdict(measure(loaded.model, images.test, device=device, among=among))
    terminal.show(_accuracy(result))
    terminal.record(result)


def _accuracy(result: dict[str, Any]) -> str:
    return (
        f"top-1 {100 * result['top1']:.2f} %  top-5 {100 * result['top5']:.2f} %  "
        f"loss {result['loss']:.4f}  {result['images']} images"
    )
