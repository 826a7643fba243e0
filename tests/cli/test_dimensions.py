"""`--input` of one and three dimensions: counted as Python counts, kept in folders, refused where only images fit."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import convsmith as cs
from convsmith.cli.app import app
from convsmith.load import load

NETS = """
from torch import nn

def audio():
    return nn.Sequential(nn.Conv1d(1, 8, 9, 4), nn.ReLU(), nn.Conv1d(8, 16, 3, padding=1), nn.ReLU(),
                         nn.Conv1d(16, 16, 3, padding=1), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 5))

def video():
    return nn.Sequential(nn.Conv3d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 8, 3, padding=1))
"""


@pytest.fixture
def nets(tmp_path: Path) -> str:
    (tmp_path / "nets_of_sides.py").write_text(NETS)
    return str(tmp_path / "nets_of_sides.py")


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.mark.parametrize(("name", "shape"), [("audio", (1, 400)), ("video", (3, 4, 8, 8))])
def test_counts_are_those_of_python_from_net_to_file(
    nets: str, name: str, shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, text = f"{nets}:{name}", ",".join(map(str, shape))
    graph = cs.capture(load(net, trust=True).model, torch.zeros(1, *shape))
    told = json.loads(run("analyze", net, "--input", text, "--json", "-").stdout)
    assert told["totals"]["macs"] == graph.macs > 0
    assert told["layers"][0]["in"] == list(shape)
    made, plan = tmp_path / "made", tmp_path / "plan.json"
    for command in (
        ("organize", net, "--input", text, "-o", plan), ("apply", net, plan, "--input", text, "--out", made),
        ("export", made, "--format", "onnx"),
    ):  # fmt: skip
        result = run(*command)
        assert result.exit_code == 0, result.output
    monkeypatch.chdir(tmp_path)  # where the folder has a bare name, as nets of the zoo have
    assert run("analyze", "made", "--input", text).exit_code == 0
    again = json.loads(run("analyze", made / "model.onnx", "--json", "-").stdout)
    assert again["totals"]["macs"] == cs.Plan.from_json(plan.read_text()).new.macs


@pytest.mark.parametrize(
    ("args", "status", "told"),
    [
        (("analyze", "vgg16", "--input", "1,400"), 2, "'1,400' is no image, which vgg16 reads; write it"),
        (
            ("train", "NETS:audio", "--input", "1,400", "--data", "digits", "--out", "OUT"),
            1,
            "images have 1 or 3 channels",
        ),
        (("analyze", "NETS:audio", "--input", "16"), 2, "'16' cannot be read; write it like 3,32,32"),
        (("analyze", "NETS:audio", "--input", "1,2,3,4,5"), 2, "cannot be read; write it like 3,32,32"),
        (("analyze", "NETS:audio", "--input", "3,32,32"), 1, "check --input"),
    ],
)
def test_what_does_not_fit_is_told(nets: str, tmp_path: Path, args: tuple[str, ...], status: int, told: str) -> None:
    result = run(*(each.replace("NETS", nets).replace("OUT", str(tmp_path / "out")) for each in args))
    assert result.exit_code == status
    assert told in " ".join(result.output.replace("│", " ").split())


def test_a_folder_of_no_such_input_is_refused(nets: str, tmp_path: Path) -> None:
    assert run("train", "resnet20", "--data", "digits", "--epochs", 0, "--out", tmp_path / "a").exit_code == 0
    record = tmp_path / "a" / "model.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"input": [3]}))
    result = run("analyze", tmp_path / "a")
    assert result.exit_code == 1
    assert "give channels and one, two or three sides, such as 3,32,32" in " ".join(result.output.split())
