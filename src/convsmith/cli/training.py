"""The commands that train nets and judge them: train, evaluate."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from convsmith.cli import options as opt
from convsmith.cli.groups import Form, Place, Reading, Training, command
from convsmith.cli.terminal import Terminal
from convsmith.errors import ConvsmithError

Recovery = Literal["weights", "bn"]


@command("convsmith train runs/new --data digits --teacher runs/old --out runs/trained", "docs/cli.md")
def train(
    terminal: Terminal,
    model: opt.Reference,
    data: opt.DataSet,
    out: opt.Out,
    form: Reading,
    training: Training,
    place: Place,
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
    match: Annotated[
        list[str] | None,
        typer.Option(
            "--match", metavar="PATH", help="With --no-labels, a module whose answers are matched (default: the net's)."
        ),
    ] = None,
    recover: Annotated[
        Recovery, typer.Option(help="bn: estimate BatchNorm statistics anew, nothing else; weights: train.")
    ] = "weights",
    sync_bn: Annotated[
        bool, typer.Option("--sync-bn", help="Under torchrun, BatchNorm over the images of all processes.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Go on with a run that was stopped.")] = True,
    weights: opt.Weights = None,
) -> None:
    """Train a model, or recover one that has weights.

    A run that was stopped goes on where it was, by the same command. With --no-labels and --match, or where a net
    answers something else than classes (boxes, masks, points), its answers are matched with the teacher's.
    """
    terminal.progress(f"loading {model}", 0, 1)
    import torch

    from convsmith.cli.calibration import warn_of_weights
    from convsmith.cli.recovery import match_teacher, recover_norms, replaced, tells_classes, train_model
    from convsmith.load import load, load_with_data
    from convsmith.train import check_alone

    torch.manual_seed(place.seed)
    loaded, images = load_with_data(model, data, form.wish(), weights=weights, trust=form.trust)
    terminal.step(images.summary)
    terminal.notes(loaded.notes)
    helper = None
    if teacher:
        own = Form(images.shape, len(images.classes)).wish()
        told_by = load(teacher, own, weights=teacher_weights, trust=form.trust)
        terminal.notes(told_by.notes)
        warn_of_weights(terminal, told_by, "--teacher-weights")
        helper = told_by.model
    if recover == "bn":
        check_alone("train --recover bn")
        recover_norms(terminal, loaded, images, helper, out, place)
        return
    if helper is None and (responses or not labels):
        raise ConvsmithError("train: there is no teacher to learn from; give --teacher MODEL.")
    if match and labels:
        raise ConvsmithError("train: --match goes with --no-labels and a teacher; give these too.")
    if helper is not None and not labels and (match or not tells_classes(loaded, images)):
        match_teacher(terminal, loaded, images, helper, match or [""], out, training.told() | asdict(place))
        return
    changes: dict[str, Any] = training.told() | asdict(place)
    changes |= ({"schedule": schedule} if schedule else {}) | ({} if labels else {"teacher_weight": 1.0})
    changes |= {"sync_norms": True} if sync_bn else {}
    train_model(terminal, loaded, images, helper, replaced(loaded) if responses else [], out, resume, changes)


@command("convsmith evaluate resnet20 --data cifar10:PATH --weights w.safetensors", "docs/cli.md")
def evaluate(
    terminal: Terminal,
    model: opt.Reference,
    data: opt.DataSet,
    form: Reading,
    weights: opt.Weights = None,
    device: opt.Device = None,
) -> None:
    """Measure accuracy and loss on the test split."""
    terminal.progress(f"loading {model}", 0, 1)
    import torch

    from convsmith.load import load_with_data
    from convsmith.train import count, joined
    from convsmith.train import evaluate as measure

    torch.manual_seed(0)  # a net without weights is the same in every process
    loaded, images = load_with_data(model, data, form.wish(), weights=weights, trust=form.trust)
    terminal.step(images.summary)
    terminal.notes(loaded.notes)
    among = joined(device) if count() > 1 else None
    result = asdict(measure(loaded.model, images.test, device=device, among=among, progress=terminal.progress))
    terminal.show(_accuracy(result))
    terminal.record(result)


def _accuracy(result: dict[str, Any]) -> str:
    return (
        f"top-1 {100 * result['top1']:.2f} %  top-5 {100 * result['top5']:.2f} %  "
        f"loss {result['loss']:.4f}  {result['images']} images"
    )
