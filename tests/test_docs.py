"""The documentation is true: its code runs, its commands exist, and no command goes without documentation."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from convsmith.cli.app import app

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)

# What the entries of docs/extend.md must then do, run behind them in a process of its own.
EXTENDED = """
import torch
import convsmith as cs
from torch import nn
from convsmith.rewrite import rewrite
from convsmith.transfer import Means

shuffled = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.ChannelShuffle(2), nn.Conv2d(8, 8, 1, groups=2))
graph = cs.capture(shuffled, torch.zeros(1, 4, 6, 6))
assert not graph.unknown_ops
assert graph.reaches()[graph.outputs[0]].extent().channels == 4, "the shuffle mixes the groups"

net = cs.build("vgg-small")
graph = cs.capture(net, torch.zeros(1, 3, 32, 32))
center = rewrite(net, cs.decompose(graph, block="center"))
assert not any(edit.quality for edit in center.plan.edits)
assert all(.9 < edit.error < .96 for edit in center.plan.edits), "one tap of nine: sqrt(8 / 9) of the norm is lost"
for block in ("dw-pw", "pw-dw"):
    plan = cs.decompose(graph, block=block)
    errors = [[edit.error for edit in rewrite(net, plan, Means(method)).plan.edits] for method in ("svd", "mean")]
    assert all(best < mean < 1 for best, mean in zip(*errors))
"""


def test_every_extension_in_the_documentation_works() -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "extend.md").read_text())
    assert len(blocks) == 4
    for block in blocks:
        code = [line for line in block.splitlines() if line.strip() and not line.startswith(("import ", "from "))]
        assert len(code) <= 12, "about ten lines each"
    run = subprocess.run([sys.executable, "-c", "\n".join([*blocks, EXTENDED])], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    code = "\n".join(BLOCK.findall((ROOT / "README.md").read_text()))
    assert code
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr


def test_the_table_in_the_readme_is_that_of_the_result_file() -> None:
    told = json.loads((ROOT / "bench" / "results" / "demo.json").read_text())
    text = (ROOT / "README.md").read_text()
    table = text[text.index("<!-- demo -->") : text.index("<!-- /demo -->")].splitlines()[3:]
    assert [[cell.strip() for cell in row.strip("|").split("|")] for row in table] == told["rows"]
    assert {"versions", "hardware", "seconds"} <= told.keys()


def commands() -> list[str]:
    return [command.callback.__name__ for command in app.registered_commands if command.callback]


@pytest.mark.parametrize("command", commands())
def test_every_command_is_in_the_readme(command: str) -> None:
    assert f"convsmith {command}" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/extend.md"])
def test_paths_that_the_pages_name_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    for name in re.findall(r"\]\(([\w./-]+)\)", text):
        assert ((ROOT / page).parent / name).exists(), name


def test_every_module_is_in_the_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    package = ROOT / "src" / "convsmith"
    for path in sorted(package.iterdir()):
        name = f"{path.name}/" if path.is_dir() else path.name
        if not name.startswith("__") and name != "py.typed":
            assert f"`{name}`" in text or f" {name} " in text, f"{name} is not in ARCHITECTURE.md"
