"""Nets of float16, bfloat16 and float64: planned and fitted in their type, exported and measured in float32."""

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

import convsmith as cs
from convsmith.errors import ConvsmithError

SHAPE = (3, 12, 12)
TYPES = [torch.float16, torch.bfloat16, torch.float64]


def net(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval().to(dtype)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_files_are_float32_which_is_told(dtype: torch.dtype, tmp_path: Path) -> None:
    model, x = net(dtype), torch.randn(2, *SHAPE)
    for suffix in ("onnx", "pt2", "pt"):
        check = cs.export(model, tmp_path / f"net.{suffix}", input=SHAPE)
        assert f"its weights are {str(dtype)[6:]}, and this is float32" in check.line
        assert check.max_rel_error < 1e-4
    (found,) = onnxruntime.InferenceSession(tmp_path / "net.onnx").run(None, {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), model(x.to(dtype)).float(), rtol=0.05, atol=0.02)
    assert {p.dtype for p in model.parameters()} == {dtype}, "the model is left as it was"
    model.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_they_are_measured_in_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    model = net(dtype)
    found = cs.bench({"a": model}, input=SHAPE, batches=[1], runtimes=["eager", "onnxruntime"], seconds=0.01)
    assert [cell.runtime for cell in found.cells] == ["eager", "onnxruntime"]
    assert found.notes == (f"a: its weights are {str(dtype)[6:]}, and this is float32",)
    graph = cs.capture(model, torch.zeros(1, *SHAPE, dtype=dtype))
    assert cs.measure_latency(model, graph, seconds=0.01).total > 0
    kept = tmp_path / "latency.jsonl"
    assert cs.measure_latency(model, graph, target="onnxruntime", file=kept).total > 0


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_they_are_planned_and_fitted_in_their_own_type(dtype: torch.dtype) -> None:
    model, images = net(dtype), torch.randn(8, *SHAPE)
    plan = cs.decompose(model, torch.zeros(1, *SHAPE, dtype=dtype), data=images, max_macs=0.7)
    new = cs.apply(model, plan, data=images)
    assert plan.edits
    assert {p.dtype for p in new.parameters()} == {dtype}
    assert new(images.to(dtype)).dtype == dtype


def test_float32_is_told_nothing_of(tmp_path: Path) -> None:
    check = cs.export(net(torch.float32), tmp_path / "net.onnx", input=SHAPE)
    assert check.note == ""
    assert check.line.endswith(f"largest relative error {check.max_rel_error:.1e}")


def test_half_precision_files_are_measured(tmp_path: Path) -> None:
    check = cs.export(net(torch.float32), tmp_path / "net.onnx", input=SHAPE)
    model = onnx.load(check.path)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            half = onnx.numpy_helper.to_array(tensor).astype("float16")
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    del model.graph.value_info[:]
    onnx.save(model, tmp_path / "half.onnx")
    found = cs.bench([tmp_path / "half.onnx"], batches=[1], runtimes=["onnxruntime"], seconds=0.01)
    assert [cell.runtime for cell in found.cells] == ["onnxruntime"]
    assert cs.capture_file(tmp_path / "half.onnx").macs == cs.capture_file(check.path).macs


class Cast(nn.Module):
    """Its forward computes in half precision itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x.half(), self.conv.weight.half()).float()


def test_a_forward_that_rounds_by_itself_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConvsmithError, match="deterministic, finite and float32"):
        cs.export(Cast(), tmp_path / "net.onnx", input=SHAPE)
    assert not list(tmp_path.iterdir())
