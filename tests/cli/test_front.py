"""The front door: help, names, typos and wrong usage, none of which waits for torch; and what the options mean."""

import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from convsmith.algebra import METHODS
from convsmith.blocks import BLOCKS
from convsmith.calibration import calibrate
from convsmith.cli import groups, options
from convsmith.cli.app import COMMANDS, app
from convsmith.errors import ConvsmithError
from convsmith.latency.targets import RUNTIMES
from convsmith.optimize import Settings
from convsmith.planning.search import search
from convsmith.score import metric
from convsmith.zoo import NETS

ROOT = Path(__file__).parents[2]
NAMES = [command.name for command in COMMANDS]
LIGHT = """
import sys
from convsmith.cli import main
try:
    main()
except SystemExit as ended:
    heavy = {"torch", "numpy", "onnx", "timm"} & sys.modules.keys()
    print(f"status {ended.code} heavy {sorted(heavy)}")
"""


def run(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (["--help"], 0),
        (["-h"], 0),
        (["--version"], 0),
        (["analize"], 2),
        (["optimize", "-h"], 0),
        (["analyze"], 2),
        (["analyze", "vgg16", "--input", "3,32"], 2),
        (["decompose", "vgg16", "--max-macs", "much"], 2),
        (["decompose", "vgg16", "--override", "conv1"], 1),
        (["train", "vgg16"], 2),
        (["apply", "vgg16", "plan.json", "--outt", "x"], 2),
        (["list"], 2),
    ],
)
def test_what_needs_no_net_waits_for_no_import(args: list[str], status: int) -> None:
    ended = subprocess.run([sys.executable, "-c", LIGHT, *args], capture_output=True, text=True, cwd=ROOT)
    assert ended.stdout.splitlines()[-1] == f"status {status} heavy []", ended.stderr


def test_the_package_alone_imports_nothing_heavy() -> None:
    code = "import sys, convsmith as cs; cs.__version__, dir(cs); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_the_package_can_be_run() -> None:
    told = subprocess.run([sys.executable, "-m", "convsmith", "--version"], capture_output=True, text=True)
    assert re.fullmatch(r"convsmith \d+\.\d+\.\d+\n", told.stdout)


def test_the_shell_completes_commands_and_options() -> None:
    def completed(words: str) -> list[str]:
        shell = {"_CONVSMITH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": f"{len(words.split()) - 1}"}
        code = "from convsmith.cli import main; import sys; sys.argv[0] = 'convsmith'; main()"
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **shell}
        ).stdout.split()

    assert completed("convsmith ana") == ["analyze"]
    assert completed("convsmith decompose --max-m") == ["--max-macs"]


def test_a_typo_is_told_what_was_meant() -> None:
    assert "Did you mean 'analyze'" in run("analize")[1]
    assert "--max-macs" in run("decompose", "vgg16", "--max-mac", "0.5")[1]


def test_the_list_of_commands_cuts_no_summary() -> None:
    told = " ".join(run("--help")[1].split())
    for command in COMMANDS:
        assert f"{command.name} {command.summary}" in told


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_every_help_has_an_example_that_can_be_typed_and_a_page(command: groups.Command) -> None:
    status, told = run(command.name, "-h")
    assert status == 0
    assert max(map(len, told.splitlines())) <= 80
    example = re.search(r"Example:\n +(convsmith .+)\n", told)
    page = re.search(r"More: (\S+)\n", told)
    assert example and page
    assert (ROOT / page[1]).is_file()
    _, name, *args = shlex.split(example[1])
    assert name == command.name
    get_command(app).commands[name].make_context(name, args)  # type: ignore[attr-defined]  # raises on wrong usage


@pytest.mark.parametrize("name", NAMES)
def test_options_that_all_commands_take(name: str) -> None:
    taken = {option for each in get_command(app).commands[name].params for option in each.opts}  # type: ignore[attr-defined]
    assert {"--json", "-q", "--quiet", "-v", "--verbose"} <= taken
    assert ("-o" in taken) == ("--out" in taken), "one means the other"


@pytest.mark.parametrize(
    ("kind", "names"), [("nets", NETS), ("blocks", BLOCKS), ("methods", METHODS), ("targets", RUNTIMES)]
)
def test_list_tells_what_is_registered(kind: str, names: dict) -> None:
    status, told = run("list", kind)
    assert status == 0
    assert {line.split()[0] for line in told.splitlines()[1:] if not line.startswith(" ")} == set(names)
    assert all(len(line) <= 80 for line in told.splitlines())


def test_what_is_told_twice_so_that_help_is_fast_is_the_same() -> None:
    assert get_args(options.Convention) == get_args(metric.Convention)
    assert get_args(options.Counting) == get_args(metric.Counting)
    assert get_args(options.Rank) == get_args(search.Rank)
    assert groups.IMAGES == calibrate.IMAGES


STEPS = [
    (("--max-macs", "50%"), {"max_macs": "50%"}),
    (("--max-latency", "5ms"), {"max_latency": "5ms"}),
    (("--keep", "a", "--keep", "b"), {"keep": ("a", "b")}),
    (("--override", "a=dw-pw:r=2"), {"overrides": {"a": "dw-pw:r=2"}}),
    (("--method", "als"), {"method": "als"}),
    (("--images", "7"), {"images": 7}),
    (("--lr", "0.5", "--batch-size", "9", "--epochs", "3"), {"lr": 0.5, "batch_size": 9, "epochs": 3}),
    (("--block", "none", "--organize", "--seed", "4"), {"block": "none", "organize": True, "seed": 4}),
    (("--input", "3,8,8", "--classes", "7"), {}),
]


@pytest.mark.parametrize(("args", "told"), STEPS)
def test_optimize_takes_the_options_of_its_steps(
    args: tuple[str, ...], told: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[Settings] = []

    def stop(settings: Settings, *others: object, **more: object) -> None:
        given.append(settings)
        raise ConvsmithError("enough")

    monkeypatch.setattr(sys.modules["convsmith.optimize"], "run", stop)
    assert run("optimize", "vgg16", "--data", "digits", "--out", tmp_path, *args)[0] == 1
    plain = Settings("vgg16", "digits")
    for name in inspect.signature(Settings).parameters:
        if name != "wish":
            assert getattr(given[0], name) == told.get(name, getattr(plain, name))
    assert given[0].wish.classes == (7 if "--classes" in args else None)


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_the_page_on_the_command_line_tells_of_every_option(command: groups.Command) -> None:
    """Not how: that is typer's, and another version of it has other line breaks."""
    page = (ROOT / "docs" / "cli.md").read_text()
    own = page.partition(f"\n## {command.name}\n")[2].partition("\n## ")[0]
    assert command.summary in " ".join(own.split()), "run docs/reference.py"
    for each in get_command(app).commands[command.name].params:  # type: ignore[attr-defined]
        assert not each.opts[0].startswith("-") or all(option in own for option in each.opts)
