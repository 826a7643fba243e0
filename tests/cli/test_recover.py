"""`train --teacher --no-labels` of nets that answer boxes: matched with the teacher, without labels."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner, Result

import own_net
from convsmith.cli.app import app


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture
def told(tmp_path: Path) -> tuple[object, ...]:
    """A detector and its teacher with weights, and images without labels."""
    torch.manual_seed(0)
    teacher = own_net.make_detector()
    torch.save(teacher.state_dict(), tmp_path / "teacher.pth")
    for parameter in (p for p in teacher.parameters() if p.ndim > 1):
        nn.init.normal_(parameter, std=0.3)
    torch.save(teacher.state_dict(), tmp_path / "model.pth")
    (tmp_path / "images").mkdir()
    for i in range(24):
        pixels = torch.randint(256, (16, 16, 3), dtype=torch.uint8).numpy()
        Image.fromarray(pixels).resize((32, 32)).save(tmp_path / "images" / f"{i}.png")
    net = "own_net:make_detector"
    return (
        "train", net, "--weights", tmp_path / "model.pth", "--data", f"images:{tmp_path / 'images'}",
        "--input", "3,32,32", "--teacher", net, "--teacher-weights", tmp_path / "teacher.pth",
    )  # fmt: skip


@pytest.mark.parametrize("match", [(), ("--match", "fine", "--match", "coarse")])
def test_a_detector_learns_from_its_teacher(told: tuple[object, ...], match: tuple[str, ...], tmp_path: Path) -> None:
    options = ("--no-labels", "--epochs", 3, "--lr", 0.01, "--batch-size", 4, *match, "--out", tmp_path / "out")
    result = run(*told, *options, "--json", "-")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["final"] == min(record["start"], *record["judged"]) < record["start"]
    weights = load_file(tmp_path / "out" / "model.safetensors")
    before = torch.load(tmp_path / "model.pth", weights_only=True)
    assert not torch.equal(weights["fine.0.0.weight"], before["fine.0.0.weight"])
    assert torch.equal(weights["boxes.weight"], before["boxes.weight"]) == bool(match)
    shown = run(*told, *options[:-1], tmp_path / "again").output
    assert "distance to the teacher on held-out images" in shown


def test_match_needs_a_teacher_alone(told: tuple[object, ...], tmp_path: Path) -> None:
    result = run(*told, "--match", "fine", "--out", tmp_path / "out")
    assert (result.exit_code, "--match goes with --no-labels" in result.stderr) == (1, True)
    assert not (tmp_path / "out").exists()
