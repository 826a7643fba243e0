"""A user's own code: referred to by module or file, told in one sentence whatever it raises, run only with consent."""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import convsmith as cs
from convsmith.cli.app import app
from convsmith.errors import ConvsmithError
from convsmith.load import load, load_graph, load_with_data, save
from convsmith.optimize import Settings, run

CODE = """
import sys, torch
from pathlib import Path
from torch import nn
from beside_it import WIDTH

Path("imported").touch()

class Own(BaseException):
    pass

def make():
    return nn.Sequential(nn.Conv2d(3, WIDTH, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(WIDTH, 10))

def number(): return 3
def needs(width): return nn.Conv2d(3, width, 3)
def leaves(): sys.exit("I am done")
def leaves_silently(): sys.exit()
def raises(): raise KeyError("no such\\nkey")
def raises_its_own(): raise Own("mine")
def raises_nothing(): raise Exception
def asserts(): assert False
def too_much(): raise MemoryError
def deep(): return deep()
class Mute(Exception):
    def __str__(self): raise ValueError("no word")
def raises_without_telling(): raise Mute
not_callable = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a user's code in it, imported afresh."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "code_of_mine.py").write_text(CODE)
    (tmp_path / "beside_it.py").write_text("WIDTH = 8\n")
    (tmp_path / "broken.py").write_text("def make(:\n")
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(0)\n")
    yield tmp_path
    for name in ("code_of_mine", "beside_it", "exits", "nets"):
        sys.modules.pop(name, None)


def test_a_file_and_its_function_are_a_reference(here: Path) -> None:
    folder = here / "lib" / "nets"
    folder.mkdir(parents=True)
    for name in ("code_of_mine.py", "beside_it.py"):
        (here / name).rename(folder / name)
    for reference in ("lib/nets/code_of_mine.py:make", f"{folder}/code_of_mine.py:make"):
        assert load(reference).graph().macs > 0
    save(load("lib/nets/code_of_mine.py:make"), here / "out")
    assert load(str(here / "out"), trust=True).origin.reference == "lib/nets/code_of_mine.py:make"


MISTAKES = {
    "a number": ("code_of_mine:number", "gave a int; let it return an nn.Module"),
    "an argument": ("code_of_mine:needs", "TypeError: needs() missing 1 required positional argument"),
    "an exit": ("code_of_mine:leaves", "code_of_mine:leaves: SystemExit: I am done; give package.module:factory"),
    "an exit without a word": ("code_of_mine:leaves_silently", "SystemExit: it tells no reason"),
    "an error": ("code_of_mine:raises", "KeyError: 'no such"),
    "an error of its own": ("code_of_mine:raises_its_own", "code_of_mine:raises_its_own: Own: mine"),
    "an error without a word": ("code_of_mine:raises_nothing", "Exception: it tells no reason"),
    "an assertion": ("code_of_mine:asserts", "AssertionError"),
    "memory": ("code_of_mine:too_much", "MemoryError"),
    "recursion": ("code_of_mine:deep", "RecursionError: maximum recursion depth exceeded"),
    "an error that cannot be told": ("code_of_mine:raises_without_telling", "Mute: it tells no reason"),
    "no function": ("code_of_mine:not_callable", "'int' object is not callable"),
    "none of that name": ("code_of_mine:nothing", "has no attribute 'nothing'"),
    "no name": ("code_of_mine:", "has no attribute ''"),
    "broken code": ("broken:make", "SyntaxError"),
    "broken code in a file": ("broken.py:make", "SyntaxError"),
    "code that exits": ("exits:make", "exits:make: SystemExit: 0"),
    "a file that exits": ("exits.py:make", "exits.py:make: SystemExit: 0"),
    "no module": ("no_such_module:make", "No module named 'no_such_module'"),
    "no file": ("none.py:make", "none.py: no such file"),
    "a file alone": ("code_of_mine.py", "Give code_of_mine.py:NAME, such as code_of_mine.py:make"),
    "weights for a model": ("runs/w.pth", "is a file of weights, which do not tell what net they are of"),
    "safetensors for a model": ("w.safetensors", "give the model's name, and --weights w.safetensors"),
}


@pytest.mark.parametrize(("reference", "told"), MISTAKES.values(), ids=MISTAKES)
def test_whatever_a_users_code_raises_is_told_in_one_line(here: Path, reference: str, told: str) -> None:
    with pytest.raises(ConvsmithError) as error:
        load(reference)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


FORWARDS = {
    "an error of its own": ("raise Own('mine')", "raised Own: mine; mend it there"),
    "an error beside all others": ("raise BaseException('x')", "raised BaseException: x; mend"),
    "an exit": ("sys.exit(0)", "raised SystemExit: 0; mend"),
    "an exit without a word": ("sys.exit()", "raised SystemExit: it tells no reason; mend"),
    "no more": ("raise StopIteration", "raised StopIteration: it tells no reason"),
    "the end of a generator": ("raise GeneratorExit", "raised GeneratorExit: it tells no reason"),
    "an error that cannot be told": ("raise Mute", "raised Mute: it tells no reason; mend"),
    "a file": ("open('nothing.txt')", "raised FileNotFoundError: [Errno 2] No such file or directory: 'nothing.txt'"),
    "of a library": ("import zipfile; zipfile.ZipFile(__file__)", "raised BadZipFile: File is not a zip file; mend"),
    "memory": ("raise MemoryError", "there is not enough memory for this; give fewer --images"),
    "of torch": ("x.view(7, 7)", "in forward); check --input and the model's forward."),
}
VERBS = (("analyze",), ("decompose", "--block", "dw-pw"), ("export", "--format", "onnx", "--out", "out"),
         ("bench", "--runtimes", "eager", "--batches", "1"))  # fmt: skip


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
@pytest.mark.parametrize("name", FORWARDS)
def test_whatever_a_users_forward_raises_is_told_in_one_line(here: Path, name: str, verb: tuple[str, ...]) -> None:
    line, told = FORWARDS[name]
    forward = (
        f"class Net(nn.Sequential):\n    def forward(self, x):\n        {line}\n        return super().forward(x)\n"
    )
    factory = "def raising(): return Net(nn.Conv2d(3, 4, 3), nn.ReLU())\n"
    (here / "code_of_mine.py").write_text(f"import sys\n{CODE}\n{forward}\n{factory}")
    command, *options = verb
    result = CliRunner().invoke(app, [command, "code_of_mine:raising", "--input", "3,8,8", *options])
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("convsmith: ")
    # What runs a net anyway may tell errors of the usual kinds in its own words.
    others = {"bench": "nothing was measured", "export": "cannot be (exported|written)"}
    assert told in last or re.search(others.get(command, told), last)


def test_ctrl_c_in_a_users_code_goes_through(here: Path) -> None:
    (here / "stops.py").write_text("def make(): raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load("stops:make")


# --- folders: model.json names what is run


def folder_of(here: Path, reference: str) -> Path:
    """A folder whose model.json names another factory, with code of that name beside it."""
    folder = here / "got"
    save(load("resnet20"), folder)
    record = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(record | {"reference": reference}))
    (folder / "code_of_mine.py").write_text(f"from pathlib import Path\nPath({str(here / 'imported')!r}).touch()\n")
    (here / "code_of_mine.py").unlink()
    return folder


FOREIGN = ("code_of_mine:make", "os:abort", "os:getcwd", "code_of_mine.py:make", "got/code_of_mine.py:make", "sys:exit")


@pytest.mark.parametrize("reference", FOREIGN)
def test_no_folder_runs_code_without_consent(here: Path, reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(here, reference)
    monkeypatch.chdir(folder)  # where its code would be found first
    for follow in (load, load_graph, lambda path: load_with_data(path, "digits")):
        with pytest.raises(ConvsmithError, match="runs its code; give --trust") as error:
            follow(".")
        assert repr(reference) in str(error.value)
    assert not (here / "imported").exists()
    assert str(folder) not in sys.path


@pytest.mark.parametrize(
    "reference", ["zoo:os", "timm:hf-hub:someone/net", "timm:local-dir:.", "torchvision:__class__"]
)
def test_the_built_in_sources_follow_names_that_they_have_alone(here: Path, reference: str) -> None:
    with pytest.raises(ConvsmithError, match="Unknown"):
        load(str(folder_of(here, reference)))


@pytest.mark.parametrize("plan", ["../plan.json", "/etc/hostname", "sub/plan.json"])
def test_a_folder_reads_plans_in_itself_alone(here: Path, plan: str) -> None:
    folder = folder_of(here, "zoo:resnet20")
    record = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(record | {"plans": [plan]}))
    with pytest.raises(ConvsmithError, match="lies in another folder"):
        load(str(folder))


def test_a_folder_of_code_that_was_named_before_is_ones_own(here: Path) -> None:
    base = load("code_of_mine:make")
    plan = cs.decompose(base.graph(), block="dw-pw")
    made = cs.apply(base.model, plan).eval()
    save(base.after(made, plan), here / "out")
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(load(str(here / "out")).model.eval()(x), made(x))


def test_code_of_the_same_name_in_another_file_is_not_what_was_named(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(load("code_of_mine:make"), here / "out")
    sys.modules.pop("code_of_mine")
    (here / "out" / "code_of_mine.py").write_text(f"from pathlib import Path\nPath({str(here / 'ran')!r}).touch()\n")
    monkeypatch.chdir(here / "out")
    with pytest.raises(ConvsmithError, match="names 'code_of_mine:make', which you have not named yourself before"):
        load(".")
    assert not (here / "ran").exists()


def test_consent_lasts_and_is_for_that_reference_alone(here: Path) -> None:
    save(load("resnet20"), here / "out")
    path = here / "out" / "model.json"
    record = json.loads(path.read_text())
    (here / "consented.py").write_text("import convsmith as cs\ndef make(): return cs.build('resnet20', classes=10)\n")
    path.write_text(json.dumps(record | {"reference": "consented:make"}))
    with pytest.raises(ConvsmithError, match="give --trust"):
        load(str(here / "out"))
    load(str(here / "out"), trust=True)
    Path(os.environ["XDG_STATE_HOME"], "convsmith", "own-code.json").read_text().index("consented:make")
    load(str(here / "out"))
    path.write_text(json.dumps(record | {"reference": "consented:other"}))
    with pytest.raises(ConvsmithError, match="give --trust"):
        load(str(here / "out"))


@pytest.mark.parametrize("kept", ["", "{", "{}", "3", "[3]", None])
def test_a_spoiled_or_unwritable_record_of_consent_only_asks_again(
    here: Path, monkeypatch: pytest.MonkeyPatch, kept: str | None
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(here / "state"))
    if kept is None:
        (here / "state").write_text("a file")
    else:
        (here / "state" / "convsmith").mkdir(parents=True)
        (here / "state" / "convsmith" / "own-code.json").write_text(kept)
    made = load("code_of_mine:make")
    save(made, here / "out")
    again = load(str(here / "out")).model.state_dict()
    assert all(torch.equal(tensor, again[key]) for key, tensor in made.model.state_dict().items())


def test_a_run_goes_on_with_the_code_it_was_given_and_with_no_other(here: Path) -> None:
    settings = Settings("code_of_mine:make", "digits", epochs=0, block="dw-pw")
    quick = {"formats": (), "runtimes": ("eager",), "seconds": 0.01}
    run(settings, here / "run", **quick)
    run(settings, here / "run", **quick)
    path = here / "run" / "optimized" / "model.json"
    path.write_text(path.read_text().replace("code_of_mine:make", "os:abort"))
    with pytest.raises(ConvsmithError, match="'os:abort'"):
        run(settings, here / "run", **quick)
