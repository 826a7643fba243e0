"""How far work is, said on a terminal and elsewhere; and that Ctrl-C is never lost."""

import os
import signal
import time
from collections.abc import Callable
from io import StringIO

import pytest
import typer
from rich.console import Console

from convsmith.cli import telling
from convsmith.cli.interrupts import Interrupts
from convsmith.cli.telling import Phase, Teller
from convsmith.cli.terminal import Terminal, told_in_one_line


def lines(console: Console) -> list[str]:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def elsewhere(**options: bool) -> Console:
    return Console(file=StringIO(), width=200, highlight=False, **options)


@pytest.mark.parametrize(
    ("phase", "now", "told"),
    [
        (Phase("fitting a", 0, 4, 0.0, 0), 5.0, "fitting a (1/4), 0:05 so far"),
        (Phase("fitting b", 1, 4, 0.0, 0), 10.0, "fitting b (2/4), about 0:30 to go"),
        (Phase("training", 50, 100, 0.0, 40), 10.0, "training (51/100), about 0:50 to go"),
        (Phase("loading vgg16", 0, 1, 0.0, 0), 61.0, "loading vgg16, 1:01 so far"),
        (Phase("evaluating", 4, 4, 0.0, 0), 8.0, "evaluating (4/4), about 0:00 to go"),
    ],
)
def test_a_line_tells_the_time_to_go_by_the_steps_since_the_work_began(phase: Phase, now: float, told: str) -> None:
    assert phase.line(now) == told


def test_elsewhere_a_line_is_told_while_one_step_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "EVERY", 0.05)
    monkeypatch.setattr(telling, "LOOK", 0.01)
    console = elsewhere()
    teller = Teller(console)
    teller.tell("exporting model.onnx", 0, 2)
    deadline = time.monotonic() + 20
    while len(lines(console)) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    teller.close()
    told = lines(console)
    assert len(told) >= 3
    assert all(line.startswith("exporting model.onnx (1/2), ") for line in told)
    time.sleep(0.1)
    assert lines(console) == told, "nothing is told of work that is over"


def test_elsewhere_what_is_soon_over_is_not_told_of() -> None:
    console = elsewhere()
    teller = Teller(console)
    for step in range(100):
        teller.tell("fitting", step, 100)
    teller.close()
    assert lines(console) == []


def test_quiet_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "EVERY", 0.0)
    console = elsewhere(quiet=True)
    Teller(console).tell("fitting", 1, 3)
    assert lines(console) == []


def test_a_terminal_has_a_bar_with_the_time_to_go_that_leaves_nothing_behind() -> None:
    console = elsewhere(force_terminal=True)
    teller = Teller(console)
    for step in range(3):
        teller.tell(f"fitting layer{step}", step, 3)
    assert teller._bar is not None
    teller._bar.refresh()
    teller.close()
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert "fitting layer2" in told
    assert "to go" in told
    assert told.endswith("\x1b[2K"), "the line of the bar is cleared"


def test_other_work_begins_its_own_time() -> None:
    teller = Teller(elsewhere(quiet=True))
    teller.tell("training, epoch 1 of 2", 0, 10)
    teller.tell("training, epoch 1 of 2", 5, 10)
    began = teller._phases["training,", 10].began
    teller.tell("evaluating", 0, 7)
    teller.tell("training, epoch 2 of 2", 6, 10)
    assert teller._phases["training,", 10].began == began, "it goes on after what came between"
    teller.tell("training, epoch 1 of 2", 0, 10)
    assert teller._phases["training,", 10].began > began, "another net's"


# --- Ctrl-C


def swallowed() -> None:
    """What a destructor or a callback of C code does to an interrupt."""
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except KeyboardInterrupt:
        pass


def test_an_interrupt_that_a_library_swallowed_comes_back_with_the_next_step() -> None:
    with pytest.raises(KeyboardInterrupt), Terminal() as terminal:
        swallowed()
        terminal.progress("fitting", 1, 2)
        pytest.fail("went on")


def test_an_interrupt_that_was_swallowed_at_the_very_end_comes_back() -> None:
    with pytest.raises(KeyboardInterrupt), Terminal():
        swallowed()


def test_an_interrupt_that_a_library_turned_into_another_error_is_an_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), Terminal():
        swallowed()
        raise ImportError("numpy was interrupted")


def test_an_interrupt_is_heard_where_the_shell_had_it_ignored() -> None:
    """As for what is started in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt), Interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN, "it is as before"
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(ValueError, match="another"), Terminal():
        raise ValueError("another")


def _raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return told_in_one_line(command)


OF_THE_MACHINE: dict[str, tuple[BaseException, str]] = {
    "Python's memory": (MemoryError(), "there is not enough memory"),
    "torch's memory": (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "there is not enough"),
    "memory of a convolution": (RuntimeError("could not create a primitive"), "there is not enough memory"),
    "a GPU's memory": (RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"), "there is not enough memory"),
    "a name too long": (
        OSError(36, "File name too long", "a" * 9),
        "aaaaaaaaa: File name too long; give another path.",
    ),
}


@pytest.mark.parametrize(("error", "told"), OF_THE_MACHINE.values(), ids=OF_THE_MACHINE)
def test_what_the_machine_cannot_do_is_one_sentence(error, told, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught:
        _raising(error)()
    assert caught.value.exit_code == 1
    assert capsys.readouterr().err.startswith(f"convsmith: {told}")


@pytest.mark.parametrize("error", [RuntimeError("a fault of ours"), OSError("of no file"), ValueError("of ours")])
def test_our_own_faults_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error), match="of "):
        _raising(error)()
