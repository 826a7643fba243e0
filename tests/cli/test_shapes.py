"""`--input` of several inputs: every command with a MODEL takes the shapes, by name or in order."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import convsmith as cs
from convsmith.cli.app import app
from convsmith.load import load

NETS = """
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 16, 3, padding=1)
        self.joint = nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, a, b):
        return self.joint(torch.cat([self.left(a), self.right(b)], 1))

class Many(Two):
    def forward(self, images):
        return super().forward(*images)

class Named(Two):
    def forward(self, batch):
        return super().forward(batch["a"], batch["b"])

def two(): return Two()
def many(): return Many()
def named(): return Named()
def half(): return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).half()
"""
BY_NAME, IN_ORDER = "a=3,8,8;b=3,8,8", "3,8,8;3,8,8"


@pytest.fixture
def nets(tmp_path: Path) -> str:
    (tmp_path / "nets_of_inputs.py").write_text(NETS)
    return str(tmp_path / "nets_of_inputs.py")


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.mark.parametrize(
    ("name", "text"), [("two", BY_NAME), ("two", IN_ORDER), ("many", IN_ORDER), ("named", BY_NAME)]
)
def test_a_net_goes_from_its_plan_to_its_files(nets: str, name: str, text: str, tmp_path: Path) -> None:
    net, plan, made = f"{nets}:{name}", tmp_path / "plan.json", tmp_path / "made"
    told = json.loads(run("analyze", net, "--input", text, "--json", "-").stdout)
    assert told["totals"]["macs"] == 64 * 9 * (3 * 16 * 2 + 32 * 32)
    for command in (
        ("decompose", net, "--input", text, "--block", "dw-pw", "-o", plan),
        ("apply", net, plan, "--input", text, "--out", made), ("export", made, "--format", "onnx"),
    ):  # fmt: skip
        result = run(*command)
        assert result.exit_code == 0, result.output
    new = cs.Plan.from_json(plan.read_text()).new.macs
    for again in (made, made / "model.onnx"):
        assert json.loads(run("analyze", again, "--json", "-").stdout)["totals"]["macs"] == new < told["totals"]["macs"]
    own = load(str(made), trust=True).origin.shapes
    assert own == (((3, 8, 8),) * 2 if text == IN_ORDER else {"a": (3, 8, 8), "b": (3, 8, 8)})


def test_a_folder_and_its_model_are_measured_side_by_side(nets: str, tmp_path: Path) -> None:
    made, plan, net = tmp_path / "made", tmp_path / "plan.json", f"{nets}:two"
    run("decompose", net, "--input", BY_NAME, "--block", "dw-pw", "-o", plan)
    run("apply", net, plan, "--input", BY_NAME, "--out", made)
    result = run("bench", net, made, "--input", BY_NAME, "--batches", "1", "--runtimes", "eager", "--json", "-")
    assert [row["model"] for row in json.loads(result.stdout)] == [net, str(made)]


@pytest.mark.parametrize(
    ("args", "status", "told"),
    [
        (("analyze", "{nets}:two", "--input", "a=3,8,8"), 1, "missing 1 required positional argument: 'b'"),
        (("analyze", "{nets}:two", "--input", "a=3,8,8;3,8,8"), 2, "cannot be read"),
        (("analyze", "{nets}:two", "--input", "a=3,8,8;a=3,8,8"), 2, "cannot be read"),
        (("analyze", "{nets}:two", "--input", "a=3,0,8;b=3,8,8"), 2, "cannot be read"),
        (("analyze", "resnet20", "--input", BY_NAME), 2, "is no image, which resnet20"),
        (("train", "{nets}:two", "--input", BY_NAME, "--data", "digits", "--out", "x"), 1, "takes several inputs"),
    ],
)
def test_what_does_not_fit_is_told(nets: str, args: tuple[str, ...], status: int, told: str) -> None:
    result = run(*(arg.format(nets=nets) for arg in args))
    assert result.exit_code == status
    assert told in " ".join(result.output.split())


def test_a_net_of_half_precision_is_captured_in_its_type(nets: str, tmp_path: Path) -> None:
    plan, made = tmp_path / "plan.json", tmp_path / "made"
    for command in (
        ("decompose", f"{nets}:half", "--input", "3,9,9", "--block", "dw-pw", "-o", plan),
        ("apply", f"{nets}:half", plan, "--input", "3,9,9", "--out", made),
    ):
        assert run(*command).exit_code == 0
    assert {p.dtype for p in load(str(made), trust=True).model.parameters()} == {torch.float16}
    assert "its weights are float16, and this is float32" in run("export", made, "--format", "onnx").output
