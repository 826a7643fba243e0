"""A folder is one run's while it is written, what killed processes left is swept, and foreign files stay."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

import convsmith as cs
from convsmith.cli.app import app
from convsmith.errors import ConvsmithError
from convsmith.files import is_marked, save_tensors, sweep, together, whole
from convsmith.load import Loaded, Origin, holds_model, save
from convsmith.locks import LOCK, contents, owned
from convsmith.plan import Plan, Totals
from convsmith.train import Recipe, train

NET = "own_net:make"
PLAN = Plan("net", (3, 32, 32), "", Totals((), 0.0, 1, 1), (), ())


def loaded(seed: int = 0) -> Loaded:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 10))
    return Loaded(model, Origin("own:net", (3, 32, 32)), (PLAN,))


@contextmanager
def elsewhere(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns a folder."""
    code = f"""
    import sys, time
    from pathlib import Path
    from convsmith.locks import owned
    with owned(Path({str(folder)!r})):
        print("owned", flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "owned\n"
        yield child
        child.kill()


def test_a_folder_that_another_process_writes_is_refused_until_that_ends(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with elsewhere(out) as child:
        for writes in (lambda: save(loaded(), out), lambda: train_one(out)):
            with pytest.raises(ConvsmithError, match=rf"another run is writing there \(process {child.pid} on "):
                writes()
        assert contents(out) == []
    save(loaded(), out)  # the lock of a killed process holds nobody back
    assert holds_model(out)
    assert not (out / LOCK).exists()


def train_one(out: Path) -> None:
    train(loaded().model, cs.load_data("digits"), Recipe(epochs=1, batch_size=256, device="cpu"), out=out)


WRITERS = (("apply", NET, "PLAN", "--out", "OUT"), ("export", NET, "--format", "pt2", "--out", "OUT"),
           ("train", NET, "--data", "digits", "--epochs", "1", "--lr", "0.1", "--out", "OUT"),
           ("train", NET, "--data", "digits", "--recover", "bn", "--out", "OUT"),
           ("optimize", NET, "--data", "digits", "--epochs", "1", "--out", "OUT"),
           ("expand", NET, "--data", "digits", "--out", "OUT"))  # fmt: skip


@pytest.mark.parametrize("args", WRITERS, ids=lambda args: args[0])
def test_every_command_leaves_a_folder_to_the_run_that_writes_there(tmp_path: Path, args: tuple[str, ...]) -> None:
    out, plan = tmp_path / "run", tmp_path / "plan.json"
    made = CliRunner().invoke(app, ["decompose", NET, "--input", "3,32,32", "--block", "dw-pw", "-o", str(plan)])
    assert made.exit_code == 0, made.output
    filled = [arg.replace("PLAN", str(plan)).replace("OUT", str(out)) for arg in args]
    with elsewhere(out) as child:
        result = CliRunner().invoke(app, [*filled, "--input", "3,32,32"])
        assert result.exit_code == 1, result.output
        assert f"another run is writing there (process {child.pid} on " in result.stderr.splitlines()[-1]
        assert contents(out) == []


def test_a_run_within_a_run_has_the_same_folder(tmp_path: Path) -> None:
    with owned(tmp_path / "a"), owned(tmp_path / "a"), owned(tmp_path / "a" / "b"):
        save(loaded(), tmp_path / "a")
    assert {path.name for path in contents(tmp_path / "a")} == {"model.json", "model.safetensors", "plan.json"}


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_place_that_is_no_folder_is_told(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConvsmithError, match=r"cannot be written \(.*\); choose another folder"),
        owned(tmp_path / place),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def dead_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.mark.parametrize("name", ["model.safetensors", "sub/epoch-1.safetensors"])
def test_drafts_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    target.parent.mkdir(exist_ok=True)
    dead, alive = (target.with_name(f".{target.name}.{pid}.part") for pid in (dead_process(), os.getppid()))
    others = [target.with_name(each) for each in ("mine.part", ".mine.part", f"{target.name}.1.part")]
    for path in (dead, alive, *others):
        path.write_text("half")
    with owned(tmp_path):
        assert not dead.exists()
    assert all(path.exists() for path in (alive, *others))


def test_a_file_written_again_takes_its_own_old_drafts_away(tmp_path: Path) -> None:
    own, others = (tmp_path / f".{name}.{dead_process()}.part" for name in ("a[1].txt", "a1.txt"))
    own.write_text("half")
    others.write_text("half")
    with whole(tmp_path / "a[1].txt") as draft:
        draft.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a[1].txt", others.name}
    sweep(tmp_path)
    assert not others.exists()


def test_files_come_together_or_not_at_all(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "ab"]
    told = r"a: cannot be written \(No space left on device\)"
    with pytest.raises(ConvsmithError, match=told), together(*paths) as (first, second):
        first.write_text("new")
        raise OSError(28, "No space left on device", str(second))
    assert list(tmp_path.iterdir()) == []


KILL = """
import os, signal, sys
from pathlib import Path
from test_locks import loaded
from convsmith.load import save
number, out, seen = int(sys.argv[1]), sys.argv[2], []
def watch(event, args):
    if event == "os.rename" and str(args[1]).startswith(out):
        seen.append(args)
        if len(seen) == number:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
save(loaded(), Path(out))
"""


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_kill_at_any_rename_leaves_no_model_and_the_next_run_makes_it(tmp_path: Path, number: int) -> None:
    out = tmp_path / "o"
    child = subprocess.run([sys.executable, "-c", KILL, str(number), str(out)], cwd=Path(__file__).parent, check=False)
    assert child.returncode == -signal.SIGKILL
    assert not holds_model(out)
    save(loaded(), out)
    assert {path.name for path in out.iterdir()} == {"model.json", "model.safetensors", "plan.json"}


# Files of another program.


def foreign_tensors(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"a": torch.zeros(1)}, path, metadata={"format": "pt"})


def foreign_text(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"theirs": 1}\n')


FOREIGN = {
    "weights": ("model.safetensors", foreign_tensors, save),
    "no tensors": ("model.safetensors", foreign_text, save),
    "a description": ("model.json", foreign_text, save),
    "a plan": ("plan.json", foreign_text, save),
    "an older plan": ("plan-3.json", foreign_text, save),
    "a history": ("history.jsonl", foreign_text, None),
    "a state": ("checkpoint/state.json", foreign_text, None),
    "a checkpoint": ("checkpoint/epoch-7.safetensors", foreign_tensors, None),
}


@pytest.mark.parametrize(("name", "make", "write"), FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("resume", [True, False])
def test_files_of_another_program_are_not_replaced(tmp_path: Path, name: str, make, write, resume: bool) -> None:
    make(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(ConvsmithError, match=name) as refusal:
        if write:
            write(loaded(), tmp_path)
        else:
            recipe = Recipe(epochs=1, batch_size=256, device="cpu")
            train(loaded().model, cs.load_data("digits"), recipe, out=tmp_path, resume=resume)
    assert "\n" not in str(refusal.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]
    assert (tmp_path / name).read_bytes() == before


def test_files_beside_a_net_are_nobodys_matter(tmp_path: Path) -> None:
    foreign_text(tmp_path / "theirs.json")
    save(loaded(), tmp_path)
    save(loaded(1), tmp_path)
    assert is_marked(tmp_path / "model.safetensors")
    assert (tmp_path / "theirs.json").is_file()


def test_tensors_are_marked_as_ones_own(tmp_path: Path) -> None:
    save_tensors({"a": torch.ones(2)}, tmp_path / "own")
    foreign_tensors(tmp_path / "theirs")
    assert [is_marked(tmp_path / name) for name in ("own", "theirs", "none")] == [True, False, False]
