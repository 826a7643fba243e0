"""The number type of a model: modules run in float32, .onnx files by what their nodes and weights are."""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from convsmith.bench import precision_of


def file_of(path: Path, dtype: type = np.float32, node: str = "Conv") -> Path:
    weight = numpy_helper.from_array(np.ones((2, 3, 1, 1), dtype), "w")
    graph = helper.make_graph(
        [helper.make_node(node, ["x", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 4, 4])],
        [weight],
    )
    onnx.save(helper.make_model(graph), path)
    return path


def test_modules_are_measured_in_float32() -> None:
    assert {precision_of(nn.Conv2d(3, 4, 3).to(dtype)) for dtype in (torch.float32, torch.float16)} == {"fp32"}


def test_files(tmp_path: Path) -> None:
    assert precision_of(file_of(tmp_path / "a.onnx")) == "fp32"
    assert precision_of(file_of(tmp_path / "b.onnx", np.float16)) == "fp16"
    assert precision_of(file_of(tmp_path / "c.onnx", np.int8, "ConvInteger")) == "int8"


def test_what_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\x00no net")
    told = [precision_of(each) for each in (tmp_path / "broken.onnx", tmp_path / "a.pt2")]
    assert told == ["as stored"] * 2
