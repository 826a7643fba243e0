"""The commands over a whole run: optimize, expand and report."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from convsmith.calibration.calibrate import IMAGES
from convsmith.cli import options as opt
from convsmith.cli.plans import publish, told
from convsmith.cli.terminal import Terminal, told_in_one_line
from convsmith.errors import ConvsmithError
from convsmith.load import Wish, holds_model, load
from convsmith.planning.expand import expand as plan_pairs
from convsmith.report import (
    accuracy_record,
    accuracy_table,
    before_after,
    expansion_table,
    falls,
    plan_table,
    rate_line,
    read_net,
    read_run,
    run_falls,
)
from convsmith.report import report as write_report


@told_in_one_line
def optimize(
    model: opt.Reference,
    data: opt.DataSet,
    out: opt.Out,
    weights: opt.Weights = None,
    block: Annotated[str, typer.Option("--block", help="auto, none, or a block such as dw-pw:r=2.")] = "auto",
    organize: Annotated[
        bool | None,
        typer.Option(
            "--organize/--no-organize", help="Move blocks between stages (default: unless weights are trained)."
        ),
    ] = None,
    max_macs: opt.MaxMacs = None,
    epochs: opt.Epochs = None,
    lr: opt.Rate = None,
    format: opt.Formats = "onnx,pt2",
    runtimes: Annotated[str | None, typer.Option(metavar="eager,onnxruntime", help="Runtimes to measure.")] = None,
    input: opt.Input = None,
    classes: opt.Classes = None,
    blocks_per_stage: opt.Depths = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    seed: opt.Seed = 0,
    device: opt.Device = None,
    trust: opt.Trust = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Go the whole way: plan, build, train or recover, export, measure, report; stopped runs go on."""
    from convsmith.optimize import Settings, run

    terminal = Terminal(quiet=quiet, verbose=verbose)
    wish = Wish(input, classes, blocks_per_stage, mean, std)
    settings = Settings(
        model, data, str(weights) if weights else None, wish, block, organize, max_macs, epochs, seed, lr=lr
    )
    run(
        settings, out, watch=_watch(terminal), device=device, trust=trust,
        formats=format.split(","), runtimes=runtimes.split(",") if runtimes else None,
        command=shlex.join(["convsmith", *sys.argv[1:]]),
    )  # fmt: skip
    records = read_run(out)
    terminal.show(before_after(records), f"report: {write_report(out)}")
    terminal.warn(*run_falls(records))


def _watch(terminal: Terminal) -> Any:
    """A run's steps, epochs and learning rates on the terminal."""
    from convsmith.optimize import Watch

    return Watch(terminal.step, terminal.epoch, terminal.progress, lambda found: terminal.step(rate_line(found)))


@told_in_one_line
def expand(
    model: opt.Reference,
    data: Annotated[str | None, typer.Option("--data", help="Train on it; named as for train.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder to write, with --data.")] = None,
    weights: opt.Weights = None,
    epochs: opt.Epochs = None,
    finetune: Annotated[
        int | None, typer.Option(min=0, help="Epochs after decomposing (default: half of --epochs).")
    ] = None,
    lr: opt.Rate = None,
    finetune_lr: Annotated[
        float | None, typer.Option(help="That after decomposing (default: --lr, or it is found).")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images a step.")] = None,
    images: opt.Images = IMAGES,
    teacher: Annotated[
        bool, typer.Option("--teacher", help="Fine-tune with the expanded net as teacher, which the baseline lacks.")
    ] = False,
    input: opt.Input = None,
    classes: opt.Classes = None,
    blocks_per_stage: opt.Depths = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    seed: opt.Seed = 0,
    device: opt.Device = None,
    output: opt.PlanFile = None,
    json: opt.Json = None,
    trust: opt.Trust = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Train a separable net as standard convolutions, decompose it to its old cost, fine-tune; stopped runs go on."""
    from convsmith.optimize import Expansion, expansion

    terminal = Terminal(quiet=quiet, verbose=verbose, json=json)
    wish = Wish(input, classes, blocks_per_stage, mean, std)
    if data is None or out is None:
        if data is not None or out is not None:
            raise ConvsmithError("expand: --data and --out go together; give both, or neither for the plan alone.")
        if teacher or any(option is not None for option in (epochs, finetune, lr, finetune_lr, batch_size)):
            raise ConvsmithError(
                "expand: without --data nothing is trained; give --data and --out, or the model alone."
            )
        plan = plan_pairs(load(model, wish, weights=weights, trust=trust).graph())
        publish(terminal, plan, output, told(plan), [plan_table(plan)])
        return
    if output is not None or json is not None:
        raise ConvsmithError(f"expand: the plan is kept in {out}; leave -o and --json out, or --data and --out.")
    settings = Expansion(
        model,
        data,
        str(weights) if weights else None,
        wish,
        epochs,
        finetune,
        lr,
        finetune_lr,
        batch_size,
        images,
        teacher,
        seed,
    )
    expansion(
        settings, out, watch=_watch(terminal), device=device, trust=trust,
        command=shlex.join(["convsmith", *sys.argv[1:]]),
    )  # fmt: skip
    terminal.show(expansion_table(out), f"model: {out / 'decomposed'}")
    terminal.warn(*falls(read_net(out / "decomposed")))


@told_in_one_line
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What optimize, expand or train wrote.")],
    json: opt.Json = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Rebuild the report from the records of a run or of one net; of a run of expand, its table."""
    from convsmith.optimize import BASELINE, DECOMPOSED, EXPAND, EXPANDED

    terminal = Terminal(quiet=quiet, verbose=verbose, json=json)
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
        terminal.show(before_after(run), f"report: {write_report(folder)}")
        terminal.warn(*run_falls(run))
    terminal.record({"accuracy": accuracy_record(nets)})
