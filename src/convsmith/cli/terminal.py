"""What the commands print and where: results on stdout, progress and mistakes on stderr, JSON alone where asked for."""

import functools
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic
from typing import Any, ParamSpec

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from convsmith.errors import ConvsmithError
from convsmith.files import write_text
from convsmith.train import Epoch, check_alone, leave, rank

P = ParamSpec("P")

SHARED = ("train", "evaluate")  # commands whose work several processes share
EVERY = 3.0  # seconds between lines that say how far long work is


class Terminal:
    """One command's output; `quiet` prints nothing, and JSON for stdout (`-`) keeps everything else off it."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False, json: str | None = None) -> None:
        self._json = json if rank() == 0 else None  # of several processes that train, the first speaks
        self._out = Console(quiet=quiet or json == "-" or rank() > 0, highlight=False)
        self._err = Console(stderr=True, quiet=quiet or rank() > 0, highlight=False)
        self._alarm = Console(stderr=True, quiet=rank() > 0, highlight=False)
        self._bar: Progress | None = None
        self._said = monotonic()
        if not verbose:
            warnings.simplefilter("ignore")  # of the libraries; the user's mistakes are errors
            logging.getLogger("torch").setLevel(logging.ERROR)

    def show(self, *parts: RenderableType) -> None:
        """Print tables and lines."""
        for part in parts:
            self._out.print(part)

    def record(self, result: Any) -> None:
        """Write the command's JSON where it was asked for."""
        text = json.dumps(result, indent=1)
        if self._json == "-":
            sys.stdout.write(f"{text}\n")
        elif self._json:
            write_text(Path(self._json), f"{text}\n")

    def step(self, text: str) -> None:
        """Say that a step begins."""
        self._close()
        self._err.print(text, style="dim", soft_wrap=True)

    def notes(self, notes: Iterable[str]) -> None:
        """Say what a user should know about what was read."""
        for note in notes:
            self.step(f"note: {note}")

    def warn(self, *texts: str) -> None:
        """Say what must not be missed, quiet or not."""
        self._close()
        for text in texts:
            self._alarm.print(text, style="bold red", soft_wrap=True)

    def progress(self, what: str, done: int, total: int) -> None:
        """Say how far long work is, every few seconds."""
        if monotonic() - self._said > EVERY:
            self._said = monotonic()
            self.step(f"{what} ({done + 1}/{total})" if total > 1 else what)

    def epoch(self, net: str, total: int, epoch: Epoch) -> None:
        """Move the bar of a training on, or print a line where there is no terminal."""
        told = f"loss {epoch.train_loss:.3f}  test top-1 {100 * epoch.test_top1:.2f} %"
        if not self._err.is_terminal:
            self._err.print(f"{net} epoch {epoch.epoch}/{total}  {told}  {epoch.seconds:.0f} s", soft_wrap=True)
            return
        if self._bar is None:
            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
            self._bar = Progress(
                *columns,
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[told]}"),
                console=self._err,
            )
            self._bar.add_task(net, total=total, told=told)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=epoch.epoch, told=told)
        if epoch.epoch == total:
            self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def told_in_one_line(command: Callable[P, None]) -> Callable[P, None]:
    """Wrap a command: a user's mistake, or Ctrl-C, is one line on stderr and status 1; --verbose adds its trace."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            if command.__name__ not in SHARED:
                check_alone(command.__name__)
            command(*args, **kwargs)
            leave()
        except ConvsmithError as error:
            if kwargs.get("verbose"):
                traceback.print_exc()
            _fail(str(error))
        except KeyboardInterrupt:
            _fail("interrupted; nothing is half-written, and train, optimize and expand go on where they were.")
        except BrokenPipeError:  # the reader of our output has left
            sys.stderr.close()
            raise typer.Exit(1) from None

    return run


def _fail(message: str) -> None:
    who = f"convsmith (process {rank()})" if rank() else "convsmith"
    sys.stderr.write(f"{who}: {message}\n")
    raise typer.Exit(1) from None
