"""Quantized files count as the float nets they were made from; the judge is onnxruntime.quantization's own writer."""

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from torch import Tensor, nn

import convsmith as cs

IMAGE = (3, 16, 16)


class Unit(nn.Module):
    """Sums, products, a concatenation, pools, gates: what QOperator files have forms of their own for."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.gate, self.head = nn.Conv2d(8, 8, 1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.leaky_relu(self.a(x))
        y = x + self.b(x)
        y = y * torch.sigmoid(self.gate(nn.functional.adaptive_avg_pool2d(y, 1)))
        y = torch.cat([nn.functional.avg_pool2d(y, 2), nn.functional.max_pool2d(x, 2)], 1)
        return torch.softmax(self.head(y.mean((2, 3))), -1)


class Mixer(nn.Module):
    """Matrix products over places, without and with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.a, self.b = nn.Conv2d(3, 8, 4, 4), nn.Linear(16, 24, bias=False), nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2)
        return x @ x.transpose(1, 2) @ self.b(torch.relu(self.a(x)))


class Reader(nn.Module):
    """A convolution read by a recurrent layer, column by column."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lstm = nn.Conv2d(3, 4, 3, 2, 1), nn.LSTM(32, 16, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(self.conv(x).permute(0, 3, 1, 2).flatten(2))[0]


NETS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    ),
    "unit": Unit,
    "mixer": Mixer,
    "reader": Reader,
}  # fmt: skip


class Images(CalibrationDataReader):
    """Two images."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self._left = [{"input": generator.standard_normal((1, *IMAGE)).astype(np.float32)} for _ in range(2)]

    def get_next(self) -> dict[str, Any] | None:
        return self._left.pop() if self._left else None


@cache
def floating(name: str) -> tuple[Path, cs.Graph]:
    """A net as a float file, and its graph."""
    torch.manual_seed(0)
    path = Path(mkdtemp()) / "float.onnx"
    with warnings.catch_warnings(action="ignore"):
        x = torch.randn(1, *IMAGE)
        torch.onnx.export(NETS[name]().eval(), (x,), path, dynamo=False, opset_version=13, input_names=["input"])
    return path, cs.capture_file(path)


def static(form: QuantFormat, **how: Any) -> Callable[[Path, Path], None]:
    return lambda source, target: quantize_static(source, target, Images(), quant_format=form, **how)


def dynamic(kind: QuantType, **how: Any) -> Callable[[Path, Path], None]:
    return lambda source, target: quantize_dynamic(source, target, weight_type=kind, **how)


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "qdq": static(QuantFormat.QDQ),
    "qdq by channel": static(QuantFormat.QDQ, per_channel=True, weight_type=QuantType.QInt8),
    "qdq of 16 bits": static(QuantFormat.QDQ, activation_type=QuantType.QInt16, weight_type=QuantType.QInt8,
                             extra_options={"UseQDQContribOps": True}),
    "qoperator": static(QuantFormat.QOperator),
    "qoperator by channel": static(QuantFormat.QOperator, per_channel=True),
    "dynamic": dynamic(QuantType.QUInt8),
    "dynamic by channel": dynamic(QuantType.QInt8, per_channel=True),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NETS)
def test_a_quantized_file_counts_as_its_float_net(tmp_path: Path, name: str, way: str) -> None:
    source, graph = floating(name)
    WAYS[way](source, tmp_path / "q.onnx")
    read = cs.capture_file(tmp_path / "q.onnx")
    assert not read.unknown_ops
    assert (read.macs, read.params) == (graph.macs, graph.params)
    shown, want = (sorted((x.kind, x.macs, x.call.out) for x in each.layers) for each in (read, graph))
    assert shown == want, "in an order of the quantizer's own"
    assert read.reaches()[read.outputs[0]].extent() == graph.reaches()[graph.outputs[0]].extent()


@pytest.mark.parametrize("name", ["plain", "unit"])
def test_the_float_files_are_torchs_nets(name: str) -> None:
    model = NETS[name]().eval()
    assert floating(name)[1].macs == cs.capture(model, torch.zeros(1, *IMAGE)).macs


def test_weights_packed_into_bytes_count_as_numbers(tmp_path: Path) -> None:
    """What onnxruntime's 4-bit quantizer writes: blocks of 32 inputs, two numbers a byte."""
    packed = numpy_helper.from_array(np.zeros((24, 2, 16), np.uint8), "w")
    scales = numpy_helper.from_array(np.ones(48, np.float32), "s")
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=64, N=24, bits=4,
                            block_size=32)  # fmt: skip
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 7, 64))
    model = helper.make_graph([node], "net", [value], [helper.make_empty_tensor_value_info("y")], [packed, scales])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(model, opset_imports=opsets), tmp_path / "net.onnx")
    graph = cs.capture_file(tmp_path / "net.onnx")
    assert (graph.macs, graph.params) == (7 * 64 * 24, 64 * 24)
