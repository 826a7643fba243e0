"""ONNX files made to harm: files beside them, constants without end, names that are no text, and nested parts."""

import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import convsmith as cs
from convsmith.cli.app import app
from convsmith.errors import ConvsmithError

N, F = helper.make_node, TensorProto.FLOAT
SIZES = np.array([1, 12, -1, 4])


def file(path: Path, *nodes: NodeProto, stored: list[TensorProto] | None = None, image: Any = (1, 3, 8, 8)) -> Path:
    """A file of nodes that reads x and makes y."""
    made = [helper.make_empty_tensor_value_info("y")]
    graph = helper.make_graph(nodes, "net", [helper.make_tensor_value_info("x", F, image)], made, stored or [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    path.write_bytes(model.SerializeToString())
    return path


def beside(folder: Path, **told: Any) -> Path:
    """A file whose sizes lie in another one, at the place that it tells."""
    tensor = TensorProto(name="s", data_type=TensorProto.INT64, dims=[SIZES.size], data_location=TensorProto.EXTERNAL)
    tensor.external_data.extend(onnx.StringStringEntryProto(key=key, value=str(value)) for key, value in told.items())
    return file(folder / "net.onnx", N("Reshape", ["x", "s"], ["y"]), stored=[tensor])


def laid_out(tmp_path: Path) -> Path:
    """A folder with sizes in it, and around it what a file in it must not read."""
    folder = tmp_path / "net"
    folder.mkdir()
    for path in (folder / "own.bin", tmp_path / "secret.bin"):
        path.write_bytes(SIZES.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    os.mkfifo(folder / "pipe")
    (folder / "long.bin").touch()
    os.truncate(folder / "long.bin", 200 << 30)  # of holes: it takes no room on the disk
    return folder


@pytest.mark.parametrize("told", [{}, {"offset": 0}, {"length": 32}, {"offset": 0, "length": 32}])
def test_sizes_are_read_from_the_file_beside_it(tmp_path: Path, told: dict[str, int]) -> None:
    assert cs.capture_file(beside(laid_out(tmp_path), location="own.bin", **told)).shapes["y"] == (1, 12, 4, 4)


PLACES: dict[str, dict[str, Any]] = {
    "above": {"location": "../secret.bin"}, "absolute": {"location": "/etc/passwd"},
    "by a link": {"location": "link.bin"}, "a pipe": {"location": "pipe"}, "the folder": {"location": "."},
    "a process": {"location": "/proc/self/environ"}, "nowhere": {}, "no name": {"location": ""},
    "missing": {"location": "nothing"}, "a null": {"location": "own\0.bin"}, "too long": {"location": "a" * 5000},
    "a url": {"location": "http://localhost/own.bin"},
    "without end": {"location": "long.bin"}, "a length without end": {"location": "long.bin", "length": 200 << 30},
    "an offset behind": {"location": "own.bin", "offset": 10**18}, "before": {"location": "own.bin", "offset": -8},
    "a length below 0": {"location": "own.bin", "length": -1}, "text": {"location": "own.bin", "offset": "x"},
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_numbers_elsewhere_are_not_read(tmp_path: Path, place: str) -> None:
    path = beside(laid_out(tmp_path), **PLACES[place])
    with pytest.raises(ConvsmithError, match="the numbers of s cannot be read; keep the file of its weights beside it"):
        cs.capture_file(path)


def test_constants_are_computed_up_to_a_bound(tmp_path: Path) -> None:
    """Each is small, and 3,000 would take 800 MB."""
    folds = [N("Mul", [f"k{i}", f"k{i}"], [f"k{i + 1}"]) for i in range(3000)]
    stored = [numpy_helper.from_array(np.ones(1 << 16, np.float32), "k0")]
    last = N("Add", ["x", "k3000"], ["y"])
    path = file(tmp_path / "net.onnx", *folds, last, stored=stored, image=(1, 3, 8, 1 << 16))
    tracemalloc.start()
    try:
        graph = cs.capture_file(path)
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()
    assert graph.shapes["y"] == (1, 3, 8, 1 << 16)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Protocol buffers read it as bytes."""
    path = file(tmp_path / "net.onnx", N("Relu", ["x"], ["mmmm"]), N("Relu", ["mmmm"], ["y"]))
    path.write_bytes(path.read_bytes().replace(b"mmmm", b"\xff\xfemm"))
    with pytest.raises(ConvsmithError, match="holds a name that is no text; write the file anew"):
        cs.capture_file(path)


def test_a_layer_of_one_number_has_a_row(tmp_path: Path) -> None:
    path = file(tmp_path / "net.onnx", N("Einsum", ["x", "x"], ["y"], equation="abcd,abcd->"))
    result = CliRunner().invoke(app, ["analyze", str(path), "--html", str(tmp_path / "page.html")])
    assert result.exit_code == 0, result.output


def nested(depth: int, wide: bool) -> GraphProto:
    """If in If: in both branches, or in one."""
    name = f"o{depth}"
    made = [helper.make_empty_tensor_value_info(name)]
    if depth == 0:
        return helper.make_graph([N("Relu", ["x"], [name])], name, [], made)
    inner = nested(depth - 1, wide)
    branches = {"then_branch": inner, "else_branch": inner if wide else nested(0, wide)}
    if not wide:
        branches["else_branch"].node[0].output[0] = branches["else_branch"].output[0].name = f"e{depth}"
    return helper.make_graph([N("If", ["t"], [name], **branches)], name, [], made)


@pytest.mark.parametrize(("depth", "wide"), [(10, True), (25, False)])
@pytest.mark.parametrize("known", [True, False])
def test_nested_parts_are_read_once(tmp_path: Path, depth: int, wide: bool, known: bool) -> None:
    """Whether the condition is known or not; a thousand branches, of which one at most is taken."""
    body = nested(depth, wide)
    body.node[0].output[0] = "y"
    condition = [N("ReduceSum", ["x"], ["s"], keepdims=0), N("Cast", ["s"], ["t"], to=TensorProto.BOOL)]
    stored = [numpy_helper.from_array(np.array(True), "t")] if known else []
    graph = cs.capture_file(file(tmp_path / "n.onnx", *([] if known else condition), *body.node, stored=stored))
    assert len(graph.nodes) <= 4
    assert bool(graph.unknown_ops) is not known
