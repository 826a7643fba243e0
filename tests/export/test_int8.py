"""Files in 8-bit integers: what they hold, how far they are off, what stays in float, and what is refused."""

import json
import logging
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import convsmith as cs
from convsmith.cli import app
from convsmith.data import Data
from convsmith.errors import ConvsmithError
from convsmith.export import ExportCheck, export
from convsmith.export.records import LARGEST
from convsmith.export.sensitive import chains_of, output_error, stay_in_float
from convsmith.progress import silent
from convsmith.quantize import layers_of, quantize

SHAPE = (3, 32, 32)
IMAGES = torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(0))


@cache
def digits() -> Data:
    return cs.load_data("digits")


@cache
def trained() -> nn.Module:
    """A small net that knows the digits."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for epoch in range(3):
        for images, labels in digits().train.shuffled(64, seed=0, epoch=epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
    return net.eval()


def cancelling(scale: float) -> nn.Module:
    """A stem and two factors whose terms cancel each other: what is between them is wide, the answer small."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(8, 16, 1, bias=False), nn.Conv2d(16, 8, 1, bias=False)
    with torch.no_grad():
        first.weight[8:] = scale * torch.randn(8, 8, 1, 1)
        first.weight[:8] = first.weight[8:] + 0.1 * torch.randn(8, 8, 1, 1)
        second.weight[:, 8:] = -second.weight[:, :8]
    tail = nn.Conv2d(8, 8, 3)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), first, second, nn.ReLU(), tail, nn.Flatten()).eval()


def answers(path: Path, images: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"input": images})[0]


def test_weights_and_activations_are_eight_bits_wide(tmp_path: Path) -> None:
    check = export(trained(), tmp_path / "net.int8.onnx", input=SHAPE, int8=digits())
    graph = onnx.load(check.path).graph
    stored = {each.name: each for each in graph.initializer}
    weights = [stored[node.input[0]] for node in graph.node if node.op_type == "DequantizeLinear"
               and node.input[0] in stored and stored[node.input[0]].data_type == onnx.TensorProto.INT8]  # fmt: skip
    assert {tuple(each.dims) for each in weights} >= {(16, 3, 3, 3), (32, 16, 3, 3), (32, 32, 3, 3)}
    scales = {len(stored[node.input[1]].dims) for node in graph.node if node.input[0] in {w.name for w in weights}}
    assert scales == {1}, "a scale for each channel"
    assert [path.name for path in tmp_path.iterdir()] == ["net.int8.onnx"], "one file, and the float one is gone"
    assert check.bytes == check.path.stat().st_size


def test_accuracy_and_error_are_those_of_the_file(tmp_path: Path) -> None:
    net = trained()
    check = export(net, tmp_path / "net.int8.onnx", input=SHAPE, int8=digits(), images=128)
    assert (check.precision, check.in_float) == ("int8", ())
    images, labels = next(iter(digits().test.batches(1000)))
    made = answers(check.path, images.numpy())
    own, others = made[range(len(labels)), labels], made.copy()
    others[range(len(labels)), labels] = -np.inf
    assert check.accuracy is not None
    assert (own > others.max(1)).mean() <= check.accuracy.int8 <= (own >= others.max(1)).mean(), "ties go either way"
    assert check.accuracy.fp32 == pytest.approx(cs.evaluate(net, digits().test, device="cpu").top1, abs=1e-3)
    assert check.accuracy.images == len(labels)
    assert check.accuracy.int8 > check.accuracy.fp32 - 0.05
    seen = cs.load_data("digits").train
    taken = seen.normalize(seen.drawn(128, seed=0))
    want, got = net(taken).detach().numpy(), answers(check.path, taken.numpy())
    relative = np.sqrt(np.square(got - want).sum() / np.square(want - want.mean(0)).sum())
    assert check.output_error == pytest.approx(relative, rel=1e-3)
    assert check.max_abs_error == pytest.approx(np.abs(got - want).max(), rel=1e-2)
    assert 0 < relative < LARGEST


def test_unlabelled_images_tell_no_accuracy(tmp_path: Path) -> None:
    assert export(trained(), tmp_path / "net.onnx", input=SHAPE, int8=IMAGES).accuracy is None


def test_what_suffers_stays_in_float(tmp_path: Path) -> None:
    check = export(cancelling(30), tmp_path / "net.int8.onnx", input=SHAPE, int8=IMAGES)
    assert check.in_float == ("2", "3"), "the two factors together, and neither the stem nor the tail"
    float_file = export(cancelling(30), tmp_path / "float.onnx", input=SHAPE).path
    feeds = [{"input": IMAGES.numpy()}]
    quantize(float_file, tmp_path / "all.onnx", feeds)
    assert output_error(float_file, tmp_path / "all.onnx", feeds) > LARGEST >= (check.output_error or 1)
    kept = {node.input[1]: node for node in onnx.load(check.path).graph.node if node.op_type == "Conv"}
    assert {"2.weight", "3.weight"} < kept.keys(), "their weights are read as they are"
    assert "stay in float (2, 3)" in check.line


def test_chains_are_convolutions_with_nothing_between(tmp_path: Path) -> None:
    path = export(cancelling(1), tmp_path / "net.onnx", input=SHAPE).path
    assert chains_of(path) == [("0",), ("2", "3"), ("5",)]
    assert set(layers_of(path)) == {"0", "2", "3", "5"}


def test_a_net_that_int8_does_not_suit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = export(trained(), tmp_path / "net.onnx", input=SHAPE).path
    monkeypatch.setattr(import_module("convsmith.export.sensitive"), "LARGEST", 1e-9)
    feeds = [{"input": IMAGES.numpy()}]
    assert stay_in_float(path, feeds, feeds, silent) == ()
    check = ExportCheck(path, "onnx", 20, 1000, 0.1, 0.1, "int8", 0.4)
    assert check.off
    assert "int8 does not suit the net" in check.line
    assert not replace(check, in_float=("0",)).off


REFUSALS = {
    "another format": ("net.pt2", IMAGES, r"net\.pt2: int8 files are ONNX files"),
    "images of another size": ("net.onnx", IMAGES[..., :16], r"images are 3x32x16, and the model reads 3x32x32"),
    "no images": ("net.onnx", IMAGES[:0], "has no images"),
    "one image": ("net.onnx", IMAGES[:1], "got one image"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_leave_no_file(case: str, tmp_path: Path) -> None:
    name, images, told = REFUSALS[case]
    with pytest.raises(ConvsmithError, match=told):
        export(trained(), tmp_path / name, input=SHAPE, int8=images)
    assert not list(tmp_path.iterdir())


def test_labels_of_other_classes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ConvsmithError, match="the data has 10 classes"):
        export(net, tmp_path / "net.onnx", input=SHAPE, int8=digits())
    assert not list(tmp_path.iterdir())


def test_quantizing_says_nothing_and_leaves_logging_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().level, list(logging.getLogger().handlers)
    export(trained(), tmp_path / "net.onnx", input=SHAPE, int8=IMAGES)
    assert (logging.getLogger().level, list(logging.getLogger().handlers)) == before
    assert capfd.readouterr() == ("", "")


def test_the_command_writes_both_files_and_their_record(tmp_path: Path) -> None:
    command = ["export", "resnet20", "--int8", "--data", "digits", "--images", "32", "--format", "onnx"]
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path), "--json", "-"])
    assert done.exit_code == 0, done.stderr
    records = json.loads(done.stdout)
    assert [record["precision"] for record in records] == ["fp32", "int8"]
    kept = json.loads((tmp_path / "exports.json").read_text())
    assert [record["path"] for record in kept] == ["model.onnx", "model.int8.onnx"]
    assert kept[1]["accuracy"]["images"] == 360
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.int8.onnx", "exports.json"}
    alone = CliRunner().invoke(app, ["export", "resnet20", "--int8", "--out", str(tmp_path)])
    assert alone.exit_code == 1
    assert "--int8 and --data go together" in alone.stderr
