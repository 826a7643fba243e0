"""What the commands print and where: results on stdout, progress and mistakes on stderr, JSON alone where asked for."""

import functools
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self

import typer
from rich.console import RenderableType

from convsmith.cli.console import PlainConsole
from convsmith.cli.interrupts import Interrupts
from convsmith.cli.own_code import NO_MEMORY, OwnCode
from convsmith.cli.telling import Teller
from convsmith.errors import ConvsmithError
from convsmith.files import write_text
from convsmith.torchrun import check_alone, count, rank

if TYPE_CHECKING:  # takes seconds to import
    from convsmith.train import Epoch

P = ParamSpec("P")

SHARED = ("train", "evaluate", "decompose", "apply")  # commands whose work several processes share


class Terminal:
    """One command's output; `quiet` prints nothing, and JSON for stdout (`-`) keeps everything else off it.

    While entered, Ctrl-C ends the command even where a library swallowed it.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False, json: str | None = None) -> None:
        self._json = json if rank() == 0 else None  # of several processes that train, the first speaks
        self._out = PlainConsole(quiet=quiet or json == "-" or rank() > 0, highlight=False)
        self._err = PlainConsole(stderr=True, quiet=quiet or rank() > 0, highlight=False)
        self._alarm = PlainConsole(stderr=True, quiet=rank() > 0, highlight=False)
        self._teller, self._interrupts = Teller(self._err), Interrupts()
        if not verbose:
            warnings.simplefilter("ignore")  # of the libraries; the user's mistakes are errors
            logging.getLogger("torch").setLevel(logging.ERROR)

    def __enter__(self) -> Self:
        self._interrupts.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._teller.close()
        self._interrupts.__exit__(kind, error, trace)

    def show(self, *parts: RenderableType) -> None:
        """Print tables and lines."""
        self._teller.close()
        for part in parts:
            self._out.print(part, soft_wrap=isinstance(part, str), markup=False)  # a path stays whole

    def record(self, result: Any) -> None:
        """Write the command's JSON where it was asked for."""
        text = json.dumps(result, indent=1)
        if self._json == "-":
            sys.stdout.write(f"{text}\n")
        elif self._json:
            write_text(Path(self._json), f"{text}\n")

    def step(self, text: str) -> None:
        """Say that a step begins."""
        self._line(text)
        self.progress(text, 0, 1)

    def notes(self, notes: Iterable[str]) -> None:
        """Say what a user should know about what was read."""
        for note in notes:
            self.step(f"note: {note}")

    def warn(self, *texts: str) -> None:
        """Say what must not be missed, quiet or not."""
        self._teller.close()
        for text in texts:
            self._alarm.print(text, style="bold red", soft_wrap=True, markup=False)

    def progress(self, what: str, done: int, total: int) -> None:
        """Say how far long work is: `done` of `total` steps of it are over."""
        self._interrupts.check()
        self._teller.tell(what, done, total)

    def epoch(self, net: str, total: int, epoch: "Epoch") -> None:
        """Say how an epoch ended."""
        self._interrupts.check()
        told = f"loss {epoch.train_loss:.3f}  test top-1 {100 * epoch.test_top1:.2f} %"
        self._line(f"{net} epoch {epoch.epoch}/{total}  {told}  {epoch.seconds:.0f} s")

    def _line(self, text: str) -> None:
        self._teller.said()
        self._err.print(text, style="dim", soft_wrap=True, markup=False)


def told_in_one_line(command: Callable[P, None]) -> Callable[P, None]:
    """Wrap a command: a user's mistake, or Ctrl-C, is one line on stderr and status 1; --verbose adds its trace."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            if command.__name__ not in SHARED:
                check_alone(command.__name__)
            with OwnCode():
                command(*args, **kwargs)
            _leave()
        except ConvsmithError as error:
            if kwargs.get("verbose"):
                traceback.print_exc()
            _fail(str(error))
        except BrokenPipeError:  # the reader of our output has left
            sys.stderr.close()
            raise typer.Exit(1) from None
        except (MemoryError, RuntimeError, OSError) as error:
            if (told := _of_machine(error)) is None:
                raise
            _fail(told)
        except KeyboardInterrupt:
            _fail("interrupted; nothing is half-written, and train, optimize and expand go on where they were.")

    return run


def _of_machine(error: MemoryError | RuntimeError | OSError) -> str | None:
    """What the machine does not have or do, in a sentence; None for what is no such matter."""
    if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
        return "there is not enough memory for this; give fewer --images, a smaller --batch-size, --batches or --input."
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return str(ConvsmithError(f"{error.filename}: {error.strerror}; give another path."))
    return None


def _leave() -> None:
    """Leave the processes that shared the work, where there are others."""
    if count() > 1:
        from convsmith.train import leave

        leave()


def _fail(message: str) -> None:
    who = f"convsmith (process {rank()})" if rank() else "convsmith"
    sys.stderr.write(f"{who}: {message}\n")
    raise typer.Exit(1) from None
