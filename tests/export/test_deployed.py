"""What exported files tell of themselves, and the plain files of torch."""

import json
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import convsmith as cs
from convsmith.cli import app
from convsmith.export import export
from convsmith.load import Wish, load, save
from convsmith.pt2 import read_program

SHAPE = (3, 32, 32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A net that a plan made, trained on named classes."""
    loaded = load("own_net:make", Wish(input=SHAPE))
    plan = cs.decompose(loaded.graph())
    made = loaded.after(cs.apply(loaded.model, plan), plan)
    save(made.trained_on((0.5,) * 3, (0.2,) * 3, tuple("abcdefghij")), tmp_path / "net")
    return tmp_path / "net"


def test_onnx_files_tell_what_they_are(folder: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(folder), "--trust", "--int8", "--data", "digits", "--images", "8"])
    assert done.exit_code == 0, done.stderr
    for name in ("model.onnx", "model.int8.onnx"):
        told = onnxruntime.InferenceSession(folder / name).get_modelmeta().custom_metadata_map
        assert json.loads(told["class_names"]) == list("abcdefghij")
        assert json.loads(told["mean"]) == [0.5] * 3
        assert json.loads(told["std"]) == [0.2] * 3
        assert json.loads(told["input"]) == list(SHAPE)
        assert told["convsmith_version"] == cs.__version__
        assert told["plan_fingerprint"] == json.loads((folder / "plan.json").read_text())["fingerprint"]
    extra = {"metadata.json": ""}
    torch.export.load(folder / "model.pt2", extra_files=extra)
    assert json.loads(extra["metadata.json"])["class_names"] == json.dumps(list("abcdefghij"))
    assert read_program(folder / "model.pt2").inputs, "still read as plain data"


def test_the_format_torch_is_a_plain_state_dict_and_a_program(folder: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(folder), "--trust", "--format", "torch"])
    assert done.exit_code == 0, done.stderr
    assert {path.name for path in folder.glob("model.pt*")} == {"model.pt", "model.pt2"}
    model = load(str(folder), trust=True).model.eval()
    state = torch.load(folder / "model.pt", weights_only=True)
    assert type(state) is dict
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    x = torch.randn(2, *SHAPE)
    torch.testing.assert_close(torch.export.load(folder / "model.pt2").module()(x), model(x), rtol=1e-4, atol=1e-4)


def test_a_state_dict_is_written_for_any_module(tmp_path: Path) -> None:
    net = nn.Conv2d(3, 4, 3)
    check = export(net, tmp_path / "net.pt", input=SHAPE)
    assert (check.format, check.opset) == ("pt", None)
    state = torch.load(tmp_path / "net.pt", weights_only=True)
    assert state.keys() == {"weight", "bias"}
    torch.testing.assert_close(state["weight"], net.weight.detach())
