"""Files are measured as they say: sizes, batch, types and further inputs stand in them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from typer.testing import CliRunner

from convsmith.bench import bench
from convsmith.cli.app import app
from convsmith.errors import ConvsmithError

QUICK: dict[str, Any] = {"seconds": 0.01, "threads": 1}
ORT = {"runtimes": ("onnxruntime",)}
F, H, D, I64, B = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.BOOL)


def file(path: Path, *inputs: tuple[str, int, tuple[Any, ...]], nodes: list[tuple[str, str, str]]) -> Path:
    """A file of `nodes`, each (op, "inputs", output), that takes `inputs` and makes y."""
    made = [helper.make_node(op, ins.split(" "), [out]) for op, ins, out in nodes]
    values = [helper.make_tensor_value_info(name, kind, sizes) for name, kind, sizes in inputs]
    graph = helper.make_graph(made, "net", values, [helper.make_empty_tensor_value_info("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


RELU = [("Relu", "x", "y")]
ADD = [("Add", "x z", "y")]
FILES: dict[str, tuple[list[Any], list[tuple[str, str, str]], tuple[int, ...], tuple[int, ...]]] = {
    "an image": ([("x", F, (1, 3, 8, 8))], RELU, (3, 8, 8), (1,)),
    "a wave": ([("x", F, ("n", 1, 100))], RELU, (1, 100), (1, 32)),
    "a volume": ([("x", F, (None, 2, 4, 4, 4))], RELU, (2, 4, 4, 4), (1, 32)),
    "features": ([("x", F, ("n", 7))], RELU, (7,), (1, 32)),
    "a fixed batch": ([("x", F, (4, 3, 8, 8))], RELU, (3, 8, 8), (4,)),
    "half precision": ([("x", H, ("n", 3, 8, 8))], RELU, (3, 8, 8), (1, 32)),
    "double precision": ([("x", D, ("n", 3, 8, 8))], RELU, (3, 8, 8), (1, 32)),
    "two images": ([("x", F, ("n", 3, 8, 8)), ("z", F, ("n", 3, 8, 8))], ADD, (3, 8, 8), (1, 32)),
    "a state": ([("x", F, ("n", 8)), ("z", F, (2, "n", 8))], ADD, (8,), (1, 32)),
    "indices": ([("x", F, ("n", 8)), ("z", I64, ("n", 3))], [("Relu", "x", "t"), ("Add", "z z", "y")], (8,), (1, 32)),
    "a mask": ([("x", F, ("n", 8)), ("z", B, ("n", 8))], [("Where", "z x x", "y")], (8,), (1, 32)),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_tell_what_they_take(tmp_path: Path, name: str) -> None:
    inputs, nodes, image, batches = FILES[name]
    path = file(tmp_path / "net.onnx", *inputs, nodes=nodes)
    result = bench({"net": path}, **QUICK, **ORT)
    assert result.input == image
    assert tuple(cell.batch for cell in result.cells) == batches, [skip.reason for skip in result.skipped]


class Both(nn.Module):
    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        return x + state


@pytest.mark.parametrize("name", ["wave", "two"])
def test_programs_tell_what_they_take(tmp_path: Path, name: str) -> None:
    model, inputs = {
        "wave": (nn.Conv1d(1, 4, 3), (torch.zeros(1, 1, 50),)),
        "two": (Both(), (torch.zeros(1, 6), torch.zeros(1, 6))),
    }[name]
    torch.export.save(torch.export.export(model, inputs), tmp_path / "net.pt2")
    result = bench({"net": tmp_path / "net.pt2"}, **QUICK, runtimes=("eager",))
    assert (result.input, [cell.batch for cell in result.cells]) == (inputs[0].shape[1:], [1])


def test_a_module_of_one_dimension_is_measured() -> None:
    result = bench({"net": nn.Conv1d(1, 4, 3)}, input=(1, 50), batches=(2,), **QUICK, runtimes=("eager",))
    assert len(result.cells) == 1


def test_another_batch_or_size_is_skipped_with_its_reason(tmp_path: Path) -> None:
    fixed = file(tmp_path / "a.onnx", ("x", F, (1, 3, 8, 8)), nodes=RELU)
    other = file(tmp_path / "b.onnx", ("x", F, ("n", 3, 9, 9)), nodes=RELU)
    result = bench({"a": fixed, "b": other}, **QUICK, **ORT, batches=(1, 2))
    assert [(cell.model, cell.batch) for cell in result.cells] == [("a", 1)]
    reasons = {(skip.model, skip.batch): skip.reason for skip in result.skipped}
    assert reasons["a", 2] == "its batch is fixed at 1"
    assert reasons["b", 1] == "its input 'x' is 3x9x9, not 3x8x8"


@pytest.mark.parametrize(
    ("inputs", "nodes", "told"),
    [
        ([("x", F, ("n", 3, "h", "w"))], RELU, r"net\.onnx: the size 3xhxw of its input 'x' is open; give --input"),
        ([("x", TensorProto.STRING, ("n", 3))], [("Identity", "x", "y")], "its input 'x' is text"),
    ],
)
def test_what_a_file_does_not_tell_is_asked_for(tmp_path: Path, inputs: Any, nodes: Any, told: str) -> None:
    path = file(tmp_path / "net.onnx", *inputs, nodes=nodes)
    with pytest.raises(ConvsmithError, match=told):
        bench({"net": path}, **QUICK, **ORT)


def test_the_command_fails_where_nothing_was_measured(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    path = file(tmp_path / "net.onnx", ("x", F, (1, 5, 8, 8)), nodes=RELU)
    model = onnx.load(path)
    model.graph.node[0].CopyFrom(helper.make_node("Conv", ["x", "w"], ["y"]))
    model.graph.initializer.append(weight)
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    onnx.save(model, path)
    done = CliRunner().invoke(app, ["bench", str(path), "--runtimes", "onnxruntime", "--batches", "1"])
    assert done.exit_code == 1
    assert "nothing was measured" in done.stderr
    good = file(tmp_path / "good.onnx", ("x", F, (1, 5, 8, 8)), nodes=RELU)
    assert CliRunner().invoke(app, ["bench", str(good), "--runtimes", "onnxruntime"]).exit_code == 0
