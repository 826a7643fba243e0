"""Exported files against the model they came from, judged by ONNX Runtime and torch; and files that must not be."""

import logging
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import convsmith as cs
from convsmith.blocks import parse_block
from convsmith.errors import ConvsmithError
from convsmith.export import FORMATS, Format, export, quiet, reason, session
from convsmith.kernels.spec import ConvSpec

SHAPE = (3, 32, 32)


def with_block(text: str) -> nn.Module:
    """A strided convolution's place taken by a block, between layers that reorder, normalize and pool."""
    block = parse_block(text).build(ConvSpec(8, 12, stride=(2, 2), bias=True))
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), block, nn.BatchNorm2d(12), nn.ReLU6(),
        nn.MaxPool2d(2), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip


def zoo(name: str) -> Callable[[], nn.Module]:
    return lambda: cs.build(name, input=SHAPE, classes=10)


NETS: dict[str, Callable[[], nn.Module]] = {
    **{name: zoo(name) for name in ("vgg11", "mobilenet", "resnet20")},
    **{
        text: lambda text=text: with_block(text)  # type: ignore[misc]
        for text in ("dw-pw:r=2", "dw-pw:r=2,by=split", "pw-dw:r=2", "dw-gpw:g=2", "dw-rpw:g=2,o=0.5")
    },
}


def trained(make: Callable[[], nn.Module]) -> nn.Module:
    """A net whose batch statistics are its own, left in training mode."""
    torch.manual_seed(0)
    net = make()
    net(torch.randn(4, *SHAPE))
    return net


def by_onnx_runtime(path: Path, x: Tensor) -> Tensor:
    outputs = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"input": x.numpy()})
    return torch.from_numpy(outputs[0])


def by_torch(path: Path, x: Tensor) -> Tensor:
    answer = torch.export.load(path).module()(x)
    assert isinstance(answer, Tensor)
    return answer


@pytest.mark.parametrize("name", NETS)
def test_files_compute_what_the_model_computes(name: str, tmp_path: Path) -> None:
    net = trained(NETS[name])
    before = {key: value.clone() for key, value in net.state_dict().items()}
    checks = [export(net, tmp_path / f"net.{suffix}", input=SHAPE) for suffix in ("onnx", "pt2")]

    assert all(module.training for module in net.modules())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert sorted(tmp_path.iterdir()) == [tmp_path / "net.onnx", tmp_path / "net.pt2"], "one file each"
    net.eval()
    for check, run in zip(checks, (by_onnx_runtime, by_torch), strict=True):
        for batch in (1, 2, 5):
            x = torch.randn(batch, *SHAPE)
            want = net(x).detach()
            torch.testing.assert_close(run(check.path, x), want, rtol=1e-4, atol=1e-4 * want.abs().max().item())
        assert check.bytes == check.path.stat().st_size
        assert check.max_rel_error < 1e-5
        assert str(Path(cs.__file__).parent).encode() not in check.path.read_bytes(), "where it was made is no one's"


def test_onnx_holds_standard_operators_only(tmp_path: Path) -> None:
    check = export(trained(NETS["dw-rpw:g=2,o=0.5"]), tmp_path / "net.onnx", input=SHAPE)
    model = onnx.load(check.path)
    assert check.opset == model.opset_import[0].version >= 18
    assert {entry.domain for entry in model.opset_import} == {node.domain for node in model.graph.node} == {""}
    (images,) = model.graph.input
    batch, *size = images.type.tensor_type.shape.dim
    assert images.name == "input"
    assert batch.dim_param, "of any size"
    assert tuple(each.dim_value for each in size) == SHAPE


def test_onnx_has_batch_normalization_folded_into_convolutions(tmp_path: Path) -> None:
    net = trained(lambda: nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()))
    export(net, tmp_path / "net.onnx", input=SHAPE)
    assert [node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node] == ["Conv", "Relu"]


def test_pt2_holds_standard_operators_only(tmp_path: Path) -> None:
    export(trained(NETS["dw-rpw:g=2,o=0.5"]), tmp_path / "net.pt2", input=SHAPE)
    calls = {
        str(node.target) for node in torch.export.load(tmp_path / "net.pt2").graph.nodes if node.op == "call_function"
    }
    assert all(name.startswith("aten.") for name in calls - {"<built-in function getitem>"}), calls


class Two(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"mean": x.mean((2, 3)), "double": 2 * x}


def test_every_output_is_written(tmp_path: Path) -> None:
    export(Two(), tmp_path / "net.onnx", input=SHAPE)
    runtime = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    assert [output.name for output in runtime.get_outputs()] == ["output", "output1"]
    x = torch.randn(2, *SHAPE)
    mean, double = runtime.run(None, {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(mean), x.mean((2, 3)))
    torch.testing.assert_close(torch.from_numpy(double), 2 * x)


def test_a_program_from_a_file_is_exported_again(tmp_path: Path) -> None:
    net = trained(NETS["dw-pw:r=2"])
    export(net, tmp_path / "net.pt2", input=SHAPE)
    export(torch.export.load(tmp_path / "net.pt2").module(), tmp_path / "net.ONNX", input=SHAPE)
    x = torch.randn(2, *SHAPE)
    torch.testing.assert_close(by_onnx_runtime(tmp_path / "net.ONNX", x), net.eval()(x).detach())


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Endless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / torch.zeros_like(x)


class Deciding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Pairing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1)


class Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, torch.zeros(1, 3, 1, 1, dtype=torch.float64))


def plain() -> nn.Module:
    return nn.Conv2d(3, 4, 3)


REFUSALS: dict[str, tuple[Callable[[], nn.Module], str, tuple[int, ...], str]] = {
    "an unknown suffix": (plain, "net.onx", SHAPE, "Unknown export format '.onx'; did you mean .onnx"),
    "a known suffix of another kind": (plain, "net.pth", SHAPE, "Unknown export format '.pth'; did you mean .pt"),
    "no suffix": (plain, "net", SHAPE, "Unknown export format ''; known: .onnx, .pt, .pt2"),
    "a file in the folder's place": (plain, "file/net.onnx", SHAPE, "cannot be written (File exists)"),
    "a folder in the file's place": (plain, "folder.onnx", SHAPE, "is a folder; give the name of a file"),
    "other channels": (plain, "net.onnx", (4, 8, 8), "Conv2d cannot be exported on input 4x8x8: "),
    "no channels": (plain, "net.pt2", (8, 8), "Conv2d cannot be exported on input 8x8: "),
    "an image too small": (plain, "net.pt2", (3, 2, 2), "Conv2d cannot be exported on input 3x2x2: "),
    "a branch on values": (Deciding, "net.onnx", SHAPE, "Deciding cannot be exported on input 3x32x32: "),
    "a fixed batch": (Pairing, "net.pt2", SHAPE, "Pairing cannot be exported on input 3x32x32: "),
    "another number type": (Double, "net.onnx", SHAPE, "Double cannot be exported on input 3x32x32: "),
    "noise": (Noisy, "net.onnx", SHAPE, "the forward of Noisy must be deterministic"),
    "noise in pt2": (Noisy, "net.pt2", SHAPE, "the forward of Noisy must be deterministic"),
    "no numbers": (Endless, "net.onnx", SHAPE, "the file's output is off by nan"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_are_one_line_and_leave_no_file(case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, name, shape, told = REFUSALS[case]
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ConvsmithError) as error:
        export(make(), tmp_path / name, input=shape)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert {path.name for path in tmp_path.rglob("*")} == {"file", "folder.onnx"}
    assert capfd.readouterr() == ("", "")


def test_a_failed_export_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    check = export(plain(), tmp_path / "net.onnx", input=SHAPE)
    before = check.path.read_bytes()
    with pytest.raises(ConvsmithError):
        export(Noisy(), check.path, input=SHAPE)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_more_than_onnx_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        import_module("convsmith.formats.formats"), "ONNX_LIMIT", 447
    )  # 4 x 3 x 3 x 3 weights and 4 biases are 448 bytes
    with pytest.raises(ConvsmithError, match=r"export it as \.pt2"):
        export(plain(), tmp_path / "net.onnx", input=SHAPE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("factor", "kept"), [(1.0, True), (1 + 5e-5, True), (1 + 5e-4, False)])
def test_a_file_is_kept_within_the_tolerance(
    factor: float, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = plain()
    form = Format(lambda *told: told[1].write_bytes(b"x"), lambda *told: lambda given: [factor * net(*given)])
    monkeypatch.setitem(FORMATS._entries, ".off", form)
    if kept:
        check = export(net, tmp_path / "net.off", input=SHAPE)
        assert check.max_rel_error == pytest.approx(factor - 1, rel=0.05, abs=1e-7)
        assert check.max_abs_error == pytest.approx(check.max_rel_error * largest(net), rel=0.01)
    else:
        with pytest.raises(ConvsmithError, match=r"off by 5.0e-04 of its largest value, more than 1e-04"):
            export(net, tmp_path / "net.off", input=SHAPE)
    assert (tmp_path / "net.off").exists() == kept


def largest(net: nn.Module) -> float:
    """Of the outputs on the images that the check draws at seed 0, that where the error is largest."""
    generator = torch.Generator().manual_seed(0)
    return max(net(torch.randn(batch, *SHAPE, generator=generator)).abs().max().item() for batch in (1, 3))


def test_sessions_have_the_threads_they_are_given(tmp_path: Path) -> None:
    path = export(plain(), tmp_path / "net.onnx", input=SHAPE).path
    assert session(path, 1).get_session_options().intra_op_num_threads == 1


def test_torchs_log_is_quiet_until_the_failure_is_over() -> None:
    log = logging.getLogger("torch")
    level = log.level
    with pytest.raises(ValueError, match="stop"), quiet():
        assert not log.isEnabledFor(logging.CRITICAL)
        raise ValueError("stop")
    assert log.level == level != logging.CRITICAL + 1


def chained(*texts: str) -> Exception:
    """Errors, each the cause of the one before it."""
    first, *rest = map(RuntimeError, texts)
    for error, cause in zip((first, *rest), rest, strict=False):
        error.__cause__ = cause
    return first


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("a shape.\nwith more"), "a shape"),
        (ValueError("\n  \n  late:"), "late"),
        (ValueError(), "ValueError"),
        (chained("outer", "inner", "root"), "root"),
    ],
)
def test_reason_is_the_roots_first_line(error: Exception, told: str) -> None:
    assert reason(error) == told
