"""The commands over a whole run: optimize and report."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from convsmith.cli import options as opt
from convsmith.cli.terminal import Terminal, told_in_one_line
from convsmith.load import Wish
from convsmith.report import before_after, read_run
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
    max_macs: opt.Factor = None,
    epochs: opt.Epochs = None,
    format: opt.Formats = "onnx,pt2",
    runtimes: Annotated[str | None, typer.Option(metavar="eager,onnxruntime", help="Runtimes to measure.")] = None,
    input: opt.Input = None,
    classes: opt.Classes = None,
    blocks_per_stage: opt.Depths = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    seed: opt.Seed = 0,
    device: opt.Device = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Go the whole way: plan, build, train or recover, export, measure, report; stopped runs go on."""
    from convsmith.optimize import Settings, Watch
    from convsmith.optimize import optimize as run

    terminal = Terminal(quiet=quiet, verbose=verbose)
    wish = Wish(input, classes, blocks_per_stage, mean, std)
    settings = Settings(model, data, str(weights) if weights else None, wish, block, organize, max_macs, epochs, seed)
    run(
        settings, out, watch=Watch(terminal.step, terminal.epoch), device=device, formats=format.split(","),
        runtimes=runtimes.split(",") if runtimes else None, command=shlex.join(["convsmith", *sys.argv[1:]]),
    )  # fmt: skip
    terminal.show(before_after(read_run(out)), f"report: {write_report(out)}")


@told_in_one_line
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What optimize wrote.")],
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Rebuild the report from a run's records."""
    terminal = Terminal(quiet=quiet, verbose=verbose)
    terminal.show(before_after(read_run(folder)), f"report: {write_report(folder)}")
