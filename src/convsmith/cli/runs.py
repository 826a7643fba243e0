"""The commands over a whole run: optimize, expand and report."""

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convsmith.cli import options as opt
from convsmith.cli.groups import IMAGES, Aimed, Edited, Limits, Place, Reading, Training, command
from convsmith.cli.plans import publish, told
from convsmith.cli.terminal import Terminal
from convsmith.errors import ConvsmithError

if TYPE_CHECKING:  # takes seconds to import
    from convsmith.optimize import Expansion, Watch


@command("convsmith optimize vgg16 --data digits --out runs/demo", "README.md")
def optimize(
    terminal: Terminal,
    model: opt.Reference,
    data: opt.DataSet,
    out: opt.Out,
    limits: Limits,
    edited: Edited,
    training: Training,
    form: Reading,
    aimed: Aimed,
    place: Place,
    block: opt.BlockOrNone = "auto",
    organize: Annotated[
        bool | None,
        typer.Option(
            "--organize/--no-organize", help="Move blocks between stages (default: unless weights are trained)."
        ),
    ] = None,
    method: opt.Method = None,
    images: opt.Images = IMAGES,
    refit_steps: opt.RefitSteps = 0,
    format: opt.Formats = "onnx,pt2",
    runtimes: opt.Runtimes = None,
    int8: Annotated[bool, typer.Option("--int8", help="Write and measure 8-bit files of both nets, too.")] = False,
) -> None:
    """Go the whole way: plan, build, train, export, measure, report.

    A net with trained weights is recovered instead, with itself as teacher. A run that was stopped goes on where it
    was, by the same command.
    """
    exceptions = edited.told()
    terminal.step(f"loading {model} and {data}")
    from convsmith.optimize import Settings, run
    from convsmith.report import before_after, read_run, run_falls, run_quantize_only, run_record
    from convsmith.report import report as write_report

    settings = Settings(
        model, data, form.weights_text, form.wish(), block, organize, seed=place.seed, method=method, images=images,
        int8=int8, target=aimed.aim(), refit_steps=refit_steps, **exceptions, **asdict(limits), **asdict(training),
    )  # fmt: skip
    run(
        settings, out, watch=_watch(terminal), device=place.device, formats=format.split(","),
        runtimes=runtimes.split(",") if runtimes else None, trust=form.trust, command=_line(),
        latency_file=aimed.latency_file,
    )  # fmt: skip
    page, records = write_report(out), read_run(out)
    terminal.show(before_after(records), *run_quantize_only(records), f"report: {page}")
    terminal.warn(*run_falls(records))
    terminal.record(run_record(records) | {"report": str(page)})


@command("convsmith expand mobilenet --data cifar10:PATH --out runs/wide", "docs/decomposition.md")
def expand(
    terminal: Terminal,
    model: opt.Reference,
    form: Reading,
    training: Training,
    place: Place,
    data: Annotated[str | None, typer.Option("--data", help="Train on it; named as for train.")] = None,
    plan: Annotated[Path | None, typer.Option("-o", metavar="FILE", help="Without --data: write the plan.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="With --data: folder to write.")] = None,
    finetune: Annotated[
        int | None, typer.Option(min=0, help="Epochs after decomposing (default: half of --epochs).")
    ] = None,
    finetune_lr: Annotated[
        float | None, typer.Option(help="That after decomposing (default: --lr, or it is found).")
    ] = None,
    images: opt.Images = IMAGES,
    teacher: Annotated[
        bool, typer.Option("--teacher", help="Fine-tune with the expanded net as teacher, which the baseline lacks.")
    ] = False,
) -> None:
    """Train a separable net wide, then decompose it to its old cost.

    Its pairs are trained as standard convolutions; then the net is decomposed and fine-tuned. A run that was stopped
    goes on where it was, by the same command. Without --data the plan alone is made.
    """
    terminal.progress(f"loading {model}", 0, 1)
    from convsmith.optimize import Expansion

    if data is None:
        if teacher or any(option is not None for option in (out, finetune, finetune_lr, *training.told().values())):
            raise ConvsmithError(
                "expand: without --data nothing is trained; give --data and --out, or the model and -o alone."
            )
        _plan_expansion(terminal, model, form, plan)
        return
    if out is None or plan is not None:
        raise ConvsmithError("expand: --data and --out go together, and -o is for the plan alone, without --data.")
    settings = Expansion(
        model, data, form.weights_text, form.wish(), training.epochs, finetune, training.lr,
        finetune_lr, training.batch_size, images, teacher, place.seed,
    )  # fmt: skip
    _expand(terminal, settings, out, place, form.trust)


def _plan_expansion(terminal: Terminal, model: str, form: Reading, out: Path | None) -> None:
    from convsmith.planning.expand import expand as plan_pairs
    from convsmith.report import plan_table

    plan = plan_pairs(form.load(terminal, model).graph())
    publish(terminal, plan, out, told(plan), [plan_table(plan)])


def _expand(terminal: Terminal, settings: "Expansion", out: Path, place: Place, trust: bool) -> None:
    from convsmith.optimize import BASELINE, DECOMPOSED, EXPANDED, expansion
    from convsmith.report import accuracy_record, expansion_table, falls, read_net

    expansion(settings, out, watch=_watch(terminal), device=place.device, trust=trust, command=_line())
    terminal.show(expansion_table(out), f"model: {out / DECOMPOSED}")
    nets = [read_net(out / name) for name in (BASELINE, EXPANDED, DECOMPOSED)]
    terminal.warn(*falls(nets[-1]))
    terminal.record({"accuracy": accuracy_record(nets)})


def _watch(terminal: Terminal) -> "Watch":
    """A run's steps, epochs, progress and learning rates on the terminal."""
    from convsmith.optimize import Watch
    from convsmith.report import rate_line

    return Watch(terminal.step, terminal.epoch, terminal.progress, lambda found: terminal.step(rate_line(found)))


def _line() -> str:
    """What was typed, for the records."""
    return shlex.join(["convsmith", *sys.argv[1:]])


@command("convsmith report runs/demo", "docs/cli.md")
def report(
    terminal: Terminal,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What optimize, expand or train wrote.")],
) -> None:
    """Rebuild the report from the records of a run or of one net.

    Of a run of expand, its table.
    """
    terminal.progress(f"reading {folder}", 0, 1)
    from convsmith.load import holds_model
    from convsmith.optimize import BASELINE, DECOMPOSED, EXPAND, EXPANDED
    from convsmith.report import (
        accuracy_record,
        accuracy_table,
        before_after,
        expansion_table,
        falls,
        read_net,
        read_run,
        run_falls,
        run_quantize_only,
    )
    from convsmith.report import report as write_report

    if (folder / EXPAND).is_file():
        nets = [read_net(folder / name) for name in (BASELINE, EXPANDED, DECOMPOSED)]
        terminal.show(expansion_table(folder))
    elif holds_model(folder):
        nets = [read_net(folder)]
        terminal.show(accuracy_table(nets[0]), f"report: {write_report(folder)}")
        terminal.warn(*falls(nets[0]))
    else:
        run = read_run(folder)
        nets = [*run.nets]
        terminal.show(before_after(run), *run_quantize_only(run), f"report: {write_report(folder)}")
        terminal.warn(*run_falls(run))
    terminal.record({"accuracy": accuracy_record(nets)})
