"""Wrapped, compiled, scripted and lazy models, autocast, and weights that are given to functions."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import convsmith as cs
from convsmith.calibration.calibrate import calibrate
from convsmith.errors import ConvsmithError
from convsmith.graph.capture import capture
from convsmith.graph.wrappers import unwrapped
from convsmith.testing.oracles import torch_macs

X = torch.zeros(1, 3, 16, 16)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)).eval()


WRAPPED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "compiled": torch.compile,
    "compiled DataParallel": lambda model: torch.compile(nn.DataParallel(model)),
    "averaged": torch.optim.swa_utils.AveragedModel,
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapped_model_is_the_model_itself(name: str) -> None:
    wrapped = WRAPPED[name](net())
    graph = capture(wrapped, X)
    assert [node.module for node in graph.layers] == ["0", "2"]
    assert graph.macs == (3 + 16) * 16 * 9 * 256
    plan = cs.decompose(graph, block="dw-pw")
    new = cs.apply(wrapped, plan)
    assert [edit.layer for edit in plan.edits] == ["2"]
    assert isinstance(new, nn.Sequential)
    assert isinstance(unwrapped(wrapped), nn.Sequential)


class Holding(nn.Module):
    """A model with a wrapped part."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part, self.head = part, nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.part(x))
        return y


def test_a_compiled_part_is_seen_through() -> None:
    graph = capture(Holding(torch.compile(net())), X)
    assert [node.module for node in graph.layers] == ["part._orig_mod.0", "part._orig_mod.2", "head"]


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_is_refused_with_what_to_give() -> None:
    traced = torch.jit.trace(net(), X)
    with pytest.raises(ConvsmithError, match=r"is TorchScript, which hides its calls; give the model it was made from"):
        capture(traced, X)
    with pytest.raises(ConvsmithError, match=r"Holding: part is TorchScript.*model.module"):
        capture(Holding(traced), X)


# --- lazy modules


def lazy() -> nn.Sequential:
    return nn.Sequential(
        nn.LazyConv2d(16, 3, padding=1), nn.LazyBatchNorm2d(), nn.ReLU(), nn.LazyConv2d(32, 3), nn.Flatten(),
        nn.LazyLinear(10),
    )  # fmt: skip


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_lazy_modules_run_once_and_stay(device: str) -> None:
    model = lazy()
    graph = capture(model, X.to(device), batch=1)
    assert graph.macs == 256 * 16 * 27 + 196 * 32 * 144 + 6272 * 10
    assert graph.macs == torch_macs(model, X)
    assert type(model[0]) is nn.Conv2d
    assert model[1].num_batches_tracked == 0
    plan = cs.decompose(graph, block="dw-pw")
    assert cs.apply(model, plan)(X).shape == (1, 10)


def test_modes_stay_where_lazy_modules_run() -> None:
    model = lazy().train()
    capture(model, X)
    assert all(module.training for module in model.modules())


def test_a_lazy_module_that_does_not_run_is_named() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.other = nn.LazyConv2d(4, 3), nn.LazyLinear(2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.used(x)
            return y

    with pytest.raises(ConvsmithError, match="Unused: other is lazy and did not run on this input"):
        capture(Unused(), X)


def test_a_lazy_model_on_the_wrong_input_is_told_in_a_sentence() -> None:
    with pytest.raises(ConvsmithError, match="cannot be captured on input 3x1x1"):
        capture(lazy(), torch.zeros(1, 3, 1, 1))


# --- autocast


class Cast(nn.Module):
    def __init__(self, kind: str | None) -> None:
        super().__init__()
        self.a, self.b, self.kind = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), kind

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(self.kind or x.device.type, dtype=torch.bfloat16):
            y: Tensor = self.b(F.relu(self.a(x)))
        return y.float()


@pytest.mark.parametrize("kind", ["cpu", None])
def test_autocast_in_a_forward_is_captured_and_edited(kind: str | None) -> None:
    model = Cast(kind).eval()
    graph = capture(model, X)
    assert graph.macs == torch_macs(model, X)
    assert [node.params for node in graph.layers] == [3 * 16 * 9 + 16, 16 * 16 * 9 + 16]
    assert not graph.unknown_ops
    plan = cs.decompose(graph, block="dw-pw")
    assert [edit.layer for edit in plan.edits] == ["b"]
    assert cs.apply(model, plan, data=torch.rand(8, 3, 16, 16))(X).shape == (1, 16, 16, 16)


# --- weights that are given to functions


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.randn(16, 3, 3, 3)), nn.Parameter(torch.randn(16, 16, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, self.w, padding=1).relu(), self.v, padding=1)


class Beside(Functional):
    """With a module beside, so that it is no leaf."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(super().forward(x))
        return y


class Own(nn.Module):
    """A convolution class of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight)


@pytest.mark.parametrize(
    ("model", "weights", "edits"),
    [
        (Functional(), ["w", "v"], []),
        (nn.Sequential(Functional()), ["0.w", "0.v"], []),
        (Beside(), ["w", "v"], ["conv"]),
        (nn.Sequential(Own(), nn.Conv2d(16, 16, 3)), ["0.weight"], ["1"]),
    ],
    ids=["the model", "a part", "a part with modules", "a class"],
)
def test_a_weight_that_is_given_to_a_function_is_told_what_helps(
    model: nn.Module, weights: list[str], edits: list[str]
) -> None:
    graph = capture(model, X)
    assert graph.macs == torch_macs(model, X)
    plan = cs.decompose(graph, block="dw-pw")
    assert [edit.layer for edit in plan.edits] == edits
    assert [refusal.reason for refusal in plan.refusals] == [
        f"its weight {weight} is given to a function; hold it in an nn.Conv2d module to have it replaced"
        for weight in weights
    ]


class Past(nn.Module):
    """A convolution module whose weight is taken past it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.conv.weight, self.conv.bias, stride=2)


def test_a_module_that_is_passed_by_is_to_be_called() -> None:
    (refusal,) = cs.decompose(capture(Past(), X), block="dw-pw").refusals
    assert refusal.reason == "its weight conv.weight is given to a function; call conv itself to have it replaced"


def test_a_model_that_is_one_convolution_is_told_to_stand_in_a_sequence() -> None:
    plan = cs.decompose(capture(nn.Conv2d(16, 16, 3), torch.zeros(1, 16, 8, 8)), block="dw-pw")
    assert "put it in an nn.Sequential" in plan.refusals[0].reason
    put = cs.decompose(capture(nn.Sequential(nn.Conv2d(16, 16, 3)), torch.zeros(1, 16, 8, 8)), block="dw-pw")
    assert [edit.layer for edit in put.edits] == ["0"]


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapped_model_is_exported_calibrated_and_timed(name: str, tmp_path: Path) -> None:
    wrapped = WRAPPED[name](net())
    assert cs.export(wrapped, tmp_path / "net.onnx", input=(3, 16, 16)).max_rel_error < 1e-4
    assert set(calibrate(wrapped, torch.rand(4, 3, 16, 16), ["2"])) == {"2"}
    assert cs.measure_latency(wrapped, capture(wrapped, X), seconds=0.01).of(["0", "2"]) > 0


def test_the_module_of_an_exported_program_is_counted_and_its_layers_are_refused() -> None:
    model, x = net().eval(), torch.zeros(1, 3, 16, 16)
    program = torch.export.export(model, (x,)).module()
    graph = capture(program, x)
    assert graph.macs == capture(model, x).macs
    plan = cs.decompose(graph, block="dw-pw")
    assert not plan.edits
    assert len(plan.refusals) == len(cs.decompose(capture(model, x), block="dw-pw").edits) + len(
        cs.decompose(capture(model, x), block="dw-pw").refusals
    )
