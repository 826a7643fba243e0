"""The commands that train nets and judge them: train, evaluate."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from convsmith.cli import options as opt
from convsmith.cli.groups import Form, Place, Reading, Teaching, Training, command
from convsmith.cli.terminal import Terminal
from convsmith.errors import ConvsmithError

if TYPE_CHECKING:  # takes seconds to import
    from torch import nn

    from convsmith.data import Data

Recovery = Literal["weights", "bn"]


@command("convsmith train runs/new --data digits --teacher runs/old --out runs/trained", "docs/cli.md")
def train(
    terminal: Terminal,
    model: opt.Reference,
    data: opt.DataSet,
    out: opt.Out,
    training: Training,
    teaching: Teaching,
    form: Reading,
    place: Place,
    schedule: Annotated[str | None, typer.Option(help="one-cycle or cosine.")] = None,
    recover: Annotated[
        Recovery, typer.Option(help="bn: estimate BatchNorm statistics anew, nothing else; weights: train.")
    ] = "weights",
    sync_bn: Annotated[
        bool, typer.Option("--sync-bn", help="Under torchrun, BatchNorm over the images of all processes.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Go on with a run that was stopped.")] = True,
) -> None:
    """Train a model, or recover one that has weights.

    A run that was stopped goes on where it was, by the same command. With --no-labels and --match, or where a net
    answers something else than classes (boxes, masks, points), its answers are matched with the teacher's.
    """
    terminal.progress(f"loading {model}", 0, 1)
    import torch

    from convsmith.cli.recovery import match_teacher, recover_norms, replaced, tells_classes, train_model
    from convsmith.train import check_alone

    torch.manual_seed(place.seed)
    loaded, images = form.load_with(terminal, model, data)
    teacher = _teacher(terminal, teaching, images, form.trust)
    changes = training.told() | asdict(place)
    if recover == "bn":
        check_alone("train --recover bn")
        recover_norms(terminal, loaded, images, teacher, out, place)
        return
    _check(teaching)
    if teacher is not None and not teaching.labels and (teaching.match or not tells_classes(loaded, images)):
        match_teacher(terminal, loaded, images, teacher, teaching.match or [""], out, changes)
        return
    changes |= ({"schedule": schedule} if schedule else {}) | ({} if teaching.labels else {"teacher_weight": 1.0})
    changes |= {"sync_norms": True} if sync_bn else {}
    matched = replaced(loaded) if teaching.responses else []
    train_model(terminal, loaded, images, teacher, matched, out, resume, changes)


def _teacher(terminal: Terminal, teaching: Teaching, images: "Data", trust: bool) -> "nn.Module | None":
    """The trained model to learn from, of the data's shape and classes, where one is named."""
    if not teaching.teacher:
        return None
    from convsmith.cli.calibration import warn_of_weights

    form = Form(images.shape, len(images.classes), trust)
    loaded = form.load(terminal, teaching.teacher, teaching.teacher_weights)
    warn_of_weights(terminal, loaded, "--teacher-weights")
    return loaded.model


def _check(teaching: Teaching) -> None:
    """Refuse what cannot be learnt from; raises ConvsmithError."""
    if not teaching.teacher and (teaching.responses or not teaching.labels):
        raise ConvsmithError("train: there is no teacher to learn from; give --teacher MODEL.")
    if teaching.match and teaching.labels:
        raise ConvsmithError("train: --match goes with --no-labels and a teacher; give these too.")


@command("convsmith evaluate resnet20 --data cifar10:PATH --weights w.safetensors", "docs/cli.md")
def evaluate(
    terminal: Terminal,
    model: opt.Reference,
    data: opt.DataSet,
    form: Reading,
    device: opt.Device = None,
) -> None:
    """Measure accuracy and loss on the test split."""
    terminal.progress(f"loading {model}", 0, 1)
    import torch

    from convsmith.train import count, joined
    from convsmith.train import evaluate as measure

    torch.manual_seed(0)  # a net without weights is the same in every process
    loaded, images = form.load_with(terminal, model, data)
    among = joined(device) if count() > 1 else None
    result = asdict(measure(loaded.model, images.test, device=device, among=among, progress=terminal.progress))
    terminal.show(_accuracy(result))
    terminal.record(result)


def _accuracy(result: dict[str, Any]) -> str:
    return (
        f"top-1 {100 * result['top1']:.2f} %  top-5 {100 * result['top5']:.2f} %  "
        f"loss {result['loss']:.4f}  {result['images']} images"
    )
