"""The documentation is true: its code runs, its commands exist, and no command goes without documentation."""

import importlib.util
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from types import ModuleType

import pytest
from typer.testing import CliRunner

from convsmith.cli.app import app

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)

# What the entries of docs/extend.md must then do, run behind them in a process of its own.
EXTENDED = """
import tempfile
import torch
import convsmith as cs
from torch import nn
from convsmith.rewriting.apply import rewrite

class Running(nn.Module):
    def forward(self, x):
        return x.logcumsumexp(2)

graph = cs.capture(nn.Sequential(nn.Conv2d(4, 8, 3), Running()), torch.zeros(1, 4, 6, 6))
assert not graph.unknown_ops
assert graph.reaches()[graph.outputs[0]].extent().window == (6, 3), "the last row sees all rows"

import onnx
text = '<ir_version: 8, opset_import: ["": 17]> net (float[1,3,8,8] x) => (float[1,3,8,8] y) { y = Softsign(x) }'
with tempfile.TemporaryDirectory() as folder:
    onnx.save(onnx.parser.parse_model(text), f"{folder}/net.onnx")
    graph = cs.capture_file(f"{folder}/net.onnx")
assert not graph.unknown_ops
assert graph.reaches()[graph.outputs[0]].extent().window == (1, 1)

net = cs.build("vgg-small")
graph = cs.capture(net, torch.zeros(1, 3, 32, 32))
center = rewrite(net, cs.decompose(graph, block="center"))
assert not any(edit.quality for edit in center.plan.edits)
assert all(.9 < edit.error < .96 for edit in center.plan.edits), "one tap of nine: sqrt(8 / 9) of the norm is lost"
half = cs.decompose(graph, block="center", max_macs=0.5)
new = cs.apply(net, half, data=torch.rand(8, 3, 32, 32))
assert cs.capture(new, torch.zeros(1, 3, 32, 32)).macs <= 0.5 * graph.macs
for block in ("dw-pw", "pw-dw"):
    plan = cs.decompose(graph, block=block)
    errors = [[edit.error for edit in rewrite(net, plan, method=method).plan.edits] for method in ("svd", "mean")]
    assert all(best < mean < 1 for best, mean in zip(*errors))
"""


def test_every_extension_in_the_documentation_works() -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "extend.md").read_text())
    assert len(blocks) == 6
    for block in blocks:
        judged = [line for line in block.splitlines() if line.startswith("check_")]
        assert len(judged) == 1, "each ends with its judge"
        code = [line for line in block.splitlines() if line.strip() and not line.startswith(("import ", "from "))]
        assert len(code) <= 14, "about ten lines each"
    here = [block for block in blocks if "import openvino" not in block or find_spec("openvino")]
    run = subprocess.run([sys.executable, "-c", "\n".join([*here, EXTENDED])], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    code = "\n".join(BLOCK.findall((ROOT / "README.md").read_text()))
    whole = 'cs.optimize(cs.build("resnet20"), '
    assert code.count(whole) == 1
    code = code.replace(whole, 'cs.optimize(cs.build("resnet20", blocks_per_stage=(1, 1, 1)), ')  # a third as deep
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr


def test_the_python_of_the_page_on_the_metric_runs() -> None:
    (code,) = BLOCK.findall((ROOT / "docs" / "metric.md").read_text())
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "saturated stage4 sees all" in run.stdout


def between(text: str, mark: str) -> list[str]:
    return text[text.index(f"<!-- {mark} -->") : text.index(f"<!-- /{mark} -->")].splitlines()[1:]


def test_the_python_of_the_page_on_training_runs() -> None:
    code = "\n".join(BLOCK.findall((ROOT / "docs" / "train.md").read_text()))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["True", "True"]


def test_the_lines_shown_on_the_page_on_the_metric_are_what_analyze_prints() -> None:
    shown = [line.strip() for line in between((ROOT / "docs" / "metric.md").read_text(), "table")]
    told = CliRunner().invoke(app, ["analyze", "vgg16", "--input", "3,32,32"]).stdout
    printed = [line.strip() for line in told.splitlines()]
    assert len(shown) == 6
    assert [line for line in shown if line not in printed] == []


def test_the_comparison_on_the_page_on_the_metric_is_that_of_the_result_file() -> None:
    told = json.loads((ROOT / "bench" / "results" / "unproductive.json").read_text())
    head, _, *rows = between((ROOT / "docs" / "metric.md").read_text(), "unproductive")
    columns = [cell.strip() for cell in head.strip("|").split("|")]
    shown = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    held = [[row[key] if key in columns[:3] else len(row[key]) for key in columns] for row in told["rows"]]
    assert shown == [[str(cell) for cell in row] for row in held]
    assert {"versions", "hardware", "rfa_toolbox"} <= told.keys()


def test_the_table_in_the_readme_is_that_of_the_result_file() -> None:
    told = json.loads((ROOT / "bench" / "results" / "demo.json").read_text())
    text = (ROOT / "README.md").read_text()
    table = text[text.index("<!-- demo -->") : text.index("<!-- /demo -->")].splitlines()[3:]
    assert [[cell.strip() for cell in row.strip("|").split("|")] for row in table] == told["rows"]
    assert {"versions", "hardware", "seconds"} <= told.keys()


def test_the_table_of_made_up_inputs_is_that_of_the_result_file() -> None:
    told = json.loads((ROOT / "bench" / "results" / "decompose_table.json").read_text())
    text = (ROOT / "docs" / "results" / "decomposition.md").read_text()
    head, _, *rows = text[text.index("<!-- made-up -->") : text.index("<!-- /made-up -->")].splitlines()[1:]
    assert [cell.strip() for cell in head.strip("|").split("|")][1:] == told["kinds"]
    found = {name.strip(): cells for name, *cells in (row.strip("|").split("|") for row in rows)}
    assert found.keys() == told["held_out_error"].keys()
    for name, cells in found.items():
        means = [mean(told["held_out_error"][name][kind]) for kind in told["kinds"]]
        assert [cell.strip() for cell in cells] == [f"{each:.2f}" for each in means]
    assert {"versions", "hardware", "rows", "seeds"} <= told.keys()


def _bench(name: str) -> ModuleType:
    """A script of bench/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "bench" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


decompose_page = _bench("decompose_page")


def test_the_tables_of_decomposed_nets_are_those_of_the_result_file() -> None:
    page = (ROOT / "docs" / "results" / "decomposition.md").read_text()
    made = decompose_page.tables(decompose_page.read_points())
    for mark, rows in made.items():
        assert f"<!-- {mark} -->\n{rows}<!-- /{mark} -->" in page, (
            f"run bench/decompose_page.py: {mark} is of other results"
        )


def test_a_row_of_decomposed_nets_by_hand() -> None:
    points = [
        {"net": "resnet20", "who": "convsmith", "how": "cp als in order", "setting": 0.2, "macs": 0.21, "top1": top1}
        for top1 in (0.70, 0.72, 0.74)
    ]
    peer = {"net": "resnet20", "who": "tensorly-torch", "how": "cp", "setting": 0.2, "macs": 0.22, "top1": 0.5}
    _, row = decompose_page.compared([*points, peer | {"top1_norms": 0.6}], "resnet20")
    assert row == ["0.2", "", "", "", "", "0.210", "0.7200 ± 0.0231", "0.220", "0.5000", "0.6000"]


def test_the_times_of_analysis_are_those_of_the_result_file() -> None:
    told = json.loads((ROOT / "bench" / "results" / "analyze.json").read_text())
    _, _, *rows = between((ROOT / "docs" / "metric.md").read_text(), "analyze")
    shown = {
        row.strip("|").split("|")[0].strip(): [cell.strip() for cell in row.strip("|").split("|")[1:]] for row in rows
    }
    assert shown.keys() == told["nets"].keys()
    for net, (ours, *times) in shown.items():
        held = told["nets"][net]
        assert f"{held['tools']['convsmith']['cold_s']['median']:.2f}" == ours
        assert held["facts"]["macs"] == held["facts"]["torch_macs"]
        found = [f"{each:.1f}x" for each in held["times_ours"]["cold_s"].values()]
        assert [time for time in times if time != "fails"] == found


def commands() -> list[str]:
    return [command.callback.__name__ for command in app.registered_commands if command.callback]


@pytest.mark.parametrize("command", commands())
def test_every_command_is_in_the_readme(command: str) -> None:
    assert f"convsmith {command}" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
    ],
)
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
