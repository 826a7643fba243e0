"""Capture: costs as torch counts them, what modules share, what cannot be captured, and known windows."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

import convsmith as cs
from convsmith.errors import ConvsmithError
from convsmith.testing.oracles import torch_macs
from convsmith.zoo import NETS, default_input

SMALL = (3, 32, 32)


def on_meta(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> tuple[nn.Module, Tensor]:
    with torch.device("meta"):
        return build(), torch.zeros(1, *shape)


def check_costs(model: nn.Module, x: Tensor) -> cs.Graph:
    graph = cs.capture(model, x)
    assert graph.params == sum(p.numel() for p in model.parameters())
    assert graph.macs == torch_macs(model, x)
    assert sum(node.params for node in graph.nodes) == graph.params, "every parameter is some call's"
    return graph


@pytest.mark.parametrize("form", ["small", "default"])
@pytest.mark.parametrize("name", [name for name in NETS if not name.startswith("dicenet") or name == "dicenet-1.0"])
def test_costs_of_the_zoo_are_those_of_torchs_counter(name: str, form: str) -> None:
    shape = SMALL if form == "small" else default_input(name)
    check_costs(*on_meta(lambda: cs.build(name, input=shape), shape))


@pytest.mark.parametrize(
    "name", ["alexnet", "squeezenet1_1", "mobilenet_v2", "shufflenet_v2_x1_0", "densenet121", "resnext50_32x4d"]
)
def test_costs_of_torchvision_are_those_of_torchs_counter(name: str) -> None:
    graph = check_costs(*on_meta(lambda: models.get_model(name), (3, 224, 224)))
    assert not graph.unknown_ops


# Of the last convolution, as if maps had no border (Araujo et al., "Computing Receptive Fields of CNNs", Distill 2019).
@pytest.mark.parametrize(("name", "window"), [("resnet50", 427), ("mobilenet_v2", 491), ("densenet121", 2071)])
def test_free_windows_are_those_known_from_the_field(name: str, window: int) -> None:
    graph = cs.capture(*on_meta(lambda: models.get_model(name), (3, 224, 224)))
    last = [layer for layer in graph.layers if layer.kind == "conv"][-1]
    extent = graph.reaches()[last.name].extent()
    assert extent.window_free == (window, window)
    assert extent.window == (224, 224)
    assert extent.channels == 3


def test_a_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cs.capture(model, torch.randn(2, 3, 8, 8))
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_any_batch_is_one_image() -> None:
    model = nn.Conv2d(3, 4, 3)
    one, many = (cs.capture(model, torch.zeros(n, 3, 8, 8)) for n in (1, 5))
    assert one.macs == many.macs == 4 * 27 * 36
    assert one.shapes == many.shapes


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.other = nn.Conv2d(4, 4, 3, padding=1)
        self.tied = nn.Conv2d(4, 4, 3, padding=1)
        self.tied.weight = self.other.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.tied(self.other(self.conv(self.conv(x))))


def test_what_is_called_twice_or_shared_counts_once_in_parameters() -> None:
    model = Twice()
    graph = check_costs(model, torch.zeros(1, 4, 8, 8))
    assert graph.calls["conv"] == 2
    assert graph.shared == {"other", "tied"}
    assert graph.params == 2 * (4 * 4 * 9 + 4) + 4


def test_a_fingerprint_tells_nets_and_inputs_apart() -> None:
    def fingerprint(name: str, side: int = 32, classes: int = 10) -> str:
        shape = (3, side, side)
        return cs.capture(*on_meta(lambda: cs.build(name, input=shape, classes=classes), shape)).fingerprint

    told = [fingerprint("vgg11"), fingerprint("vgg16"), fingerprint("vgg11", 48), fingerprint("vgg11", classes=7)]
    assert len(set(told)) == 4
    assert fingerprint("vgg11") == told[0]


def test_cuts_are_the_tensors_that_all_passes_through() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.c(x + self.b(x))

    graph = cs.capture(Residual(), torch.zeros(1, 4, 8, 8))
    modules = {node.name: node.module for node in graph.nodes}
    assert [modules.get(name, "input") for name in graph.cuts] == ["input", "a", "", "c"]
    inner = next(node for node in graph.nodes if node.module == "b")
    assert modules[graph.before(inner)] == "a"


def test_several_inputs_and_outputs_are_read() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(2, 4, 3)

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            left, right = self.left(x), self.right(y)
            return left + right, left

    graph = cs.capture(Pair(), torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 8, 8))
    assert len(graph.inputs) == len(graph.outputs) == 2
    assert graph.macs == 36 * 4 * 9 * 5


class Forward(nn.Module):
    """A model that is only its forward."""

    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.inner = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.conv(x))


def fails(x: Tensor) -> Tensor:
    raise KeyError("no such\nkey")


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Conv2d(4, 4, 3), (3, 8, 8)),
        (nn.Conv2d(3, 4, 9), (3, 8, 8)),
        (nn.Sequential(nn.Flatten(), nn.Linear(10, 2)), (3, 8, 8)),
        (Forward(fails), (3, 8, 8)),
        (Forward(lambda x: x.reshape(7, -1)), (3, 8, 8)),
    ],
    ids=["channels", "too small", "head", "raises", "shape"],
)
def test_what_cannot_be_captured_is_told_in_one_line(model: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConvsmithError) as error:
        cs.capture(model, torch.zeros(1, *shape))
    assert f"{type(model).__name__} cannot be captured on input {'x'.join(map(str, shape))}" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_input_of_any_size_costs_nothing_on_the_meta_device() -> None:
    large, small = (cs.capture(*on_meta(models.resnet18, (3, side, side))) for side in (4096, 256))
    head = 512 * 1000
    assert large.macs - head == 16**2 * (small.macs - head)
