"""Nets of several inputs: written with names and a free batch, run by other runtimes, and measured."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import convsmith as cs
from convsmith.errors import ConvsmithError
from convsmith.graph.signature import Shapes


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(1, 8, 3, padding=1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.left(a) - 2 * self.right(b)


class Later(Two):
    def forward(self, a: Tensor, scale: float = 1.0, *, b: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(a, b) * scale


class Many(Two):
    def forward(self, images: list[Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(*images)


class Rest(Two):
    def forward(self, *images: Tensor) -> Tensor:
        return super().forward(*images)


class Named(Two):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(batch["a"], batch["b"])


A, B = (3, 10, 10), (1, 10, 10)
CASES: dict[str, tuple[Callable[[], nn.Module], Shapes, list[str], Callable[[Tensor, Tensor], Any]]] = {
    "by name": (Two, {"a": A, "b": B}, ["a", "b"], lambda a, b: (a, b)),
    "by name, in another order": (Two, {"b": B, "a": A}, ["a", "b"], lambda a, b: (a, b)),
    "in order": (Two, (A, B), ["a", "b"], lambda a, b: (a, b)),
    "one by keyword alone": (Later, {"a": A, "b": B}, ["a", "b"], lambda a, b: (a,)),
    "a list": (Many, (A, B), ["images_0", "images_1"], lambda a, b: ([a, b],)),
    "any number": (Rest, (A, B), ["images_0", "images_1"], lambda a, b: (a, b)),
    "a dictionary": (Named, {"a": A, "b": B}, ["batch_a", "batch_b"], lambda a, b: ({"a": a, "b": b},)),
}


@pytest.mark.parametrize("case", CASES)
def test_files_compute_what_the_model_computes(case: str, tmp_path: Path) -> None:
    make, shapes, names, call = CASES[case]
    net, a, b = make().eval(), torch.randn(4, *A), torch.randn(4, *B)
    given, others = call(a, b), {"b": b} if make is Later else {}
    want = net(*given, **others).detach()
    for suffix in ("onnx", "pt2", "pt"):
        assert cs.export(net, tmp_path / f"net.{suffix}", input=shapes).max_rel_error < 1e-5
    model = onnx.load(tmp_path / "net.onnx")
    assert [value.name for value in model.graph.input] == names
    assert all(value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.input), "batches of any size"
    told = {prop.key: prop.value for prop in model.metadata_props}["input"]
    assert told == json.dumps(shapes)
    feed = dict(zip(names, (a.numpy(), b.numpy()), strict=True))
    (found,) = onnxruntime.InferenceSession(tmp_path / "net.onnx").run(None, feed)
    torch.testing.assert_close(torch.from_numpy(found), want, rtol=1e-4, atol=1e-4)
    program = torch.export.load(tmp_path / "net.pt2").module()
    torch.testing.assert_close(program(*given, **others), want)
    net.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))


@pytest.mark.parametrize("case", ["by name, in another order", "a list", "a dictionary"])
def test_they_are_measured_as_modules_and_as_files(case: str, tmp_path: Path) -> None:
    make, shapes, _, _ = CASES[case]
    net = make()
    found = cs.bench({"net": net}, input=shapes, batches=[2], runtimes=["eager", "onnxruntime"], seconds=0.01)
    assert [cell.runtime for cell in found.cells] == ["eager", "onnxruntime"], found.skipped
    cs.export(net, tmp_path / "net.onnx", input=shapes)
    assert cs.bench([tmp_path / "net.onnx"], batches=[2], runtimes=["onnxruntime"], seconds=0.01).cells


def test_layers_of_such_a_net_are_timed_in_a_target(tmp_path: Path) -> None:
    net = Named().eval()
    graph = cs.capture(net, {"a": torch.zeros(1, *A), "b": torch.zeros(1, *B)})
    assert cs.measure_latency(net, graph, seconds=0.01).total > 0
    for target in ("eager", "onnxruntime"):
        assert cs.measure_latency(net, graph, target=target, file=tmp_path / "kept").total > 0


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ({"a": A}, "missing a required argument: 'b'"),
        ({"a": A, "c": B}, "argument"),
        ((A, A), "expected input"),
        ((A, B, B), "argument"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes: Shapes, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConvsmithError, match=told) as error:
        cs.export(Two(), tmp_path / "net.onnx", input=shapes)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_int8_is_for_images_alone(tmp_path: Path) -> None:
    with pytest.raises(ConvsmithError, match="takes several inputs, and is calibrated on images alone"):
        cs.export(Two(), tmp_path / "net.onnx", input=(A, B), int8=torch.rand(4, *A))
