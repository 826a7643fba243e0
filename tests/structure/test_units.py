"""Units: what a stage repeats in the zoo's nets and in own nested modules, and what cannot be moved."""

from functools import cache

import pytest
import torch
import torchvision
from torch import Tensor, nn

import convsmith as cs
from convsmith.plan import Refusal
from convsmith.structure.stages import find_stages
from convsmith.structure.units import Unit, find_units
from nets import graph_of


def units_of(graph: cs.Graph) -> tuple[list[list[Unit]], list[Refusal]]:
    return find_units(graph, find_stages(graph, graph.reaches()))


def modules_of(net: nn.Module, *shape: int) -> list[list[str]]:
    units, refusals = units_of(graph_of(net, *shape))
    assert refusals == []
    return [[" ".join(unit.modules) for unit in stage] for stage in units]


@cache
def zoo_net(name: str) -> nn.Module:
    with torch.device("meta"):
        return cs.build(name, input=(3, 32, 32))


@cache
def zoo_graph(name: str) -> cs.Graph:
    return graph_of(zoo_net(name), 3, 32, 32)


# --- the zoo and torchvision ---


def test_a_unit_of_vgg_is_a_run_of_convolution_normalization_and_relu() -> None:
    units, refusals = units_of(zoo_graph("vgg11"))
    assert refusals == []
    assert [[unit.modules for unit in stage] for stage in units] == [
        [tuple(f"features.{i}" for i in (start, start + 1, start + 2)) for start in starts]
        for starts in ([0], [4], [8, 11], [15, 18], [22, 25])
    ]
    first, second = units[2]
    assert (first.in_shape, first.out_shape, first.uniform) == ((128, 8, 8), (256, 8, 8), False)
    assert (second.in_shape, second.out_shape, second.uniform) == ((256, 8, 8), (256, 8, 8), True)
    # a convolution with bias, and scale and shift of its normalization
    assert (second.params, second.macs) == (256 * 256 * 9 + 256 + 2 * 256, 256 * 256 * 9 * 64)
    assert second.kernels == ((3, 3),)


@pytest.mark.parametrize(
    ("name", "blocks", "kernels"),
    [("resnet20", (3, 3, 3), 2), ("resnet50", (3, 4, 6, 3), 1), ("mobilenet", (1, 2, 2, 6, 2), 1)],
)
def test_a_unit_of_a_net_of_blocks_is_a_block(name: str, blocks: tuple[int, ...], kernels: int) -> None:
    units, refusals = units_of(zoo_graph(name))
    assert refusals == []
    assert [[unit.modules for unit in stage] for stage in units] == [
        [(f"layer{i}.{k}",) for k in range(count)] for i, count in enumerate(blocks, 1)
    ]
    for i, stage in enumerate(units):
        for k, unit in enumerate(stage):
            assert unit.kernels == ((3, 3),) * kernels
            assert unit.uniform == (k > 0 or (name == "resnet20" and i == 0))
            block = zoo_net(name).get_submodule(unit.modules[0])
            assert unit.params == sum(p.numel() for p in block.parameters())


@pytest.mark.parametrize("name", ["vgg11", "vgg19-wa", "mobilenet", "resnet18", "resnet20", "resnet50"])
def test_every_counted_convolution_is_in_one_unit(name: str) -> None:
    graph = zoo_graph(name)
    stages = find_stages(graph, graph.reaches())
    units, refusals = find_units(graph, stages)
    assert refusals == []
    for stage, here in zip(stages.stages, units, strict=True):
        assert [conv for unit in here for conv in unit.convs] == [node.name for node in stage.counted]
    modules = [module for here in units for unit in here for module in unit.modules]
    assert len(modules) == len(set(modules))
    assert graph.macs > sum(unit.macs for here in units for unit in here) > 0.9 * graph.macs


def test_torchvision_blocks() -> None:
    with torch.device("meta"):
        resnet, mobile = (torchvision.models.get_model(n, weights=None) for n in ("resnet18", "mobilenet_v2"))
    assert modules_of(resnet, 3, 224, 224) == [[f"layer{i}.{k}" for k in (0, 1)] for i in (1, 2, 3, 4)]
    # A bottleneck with a residual sum moves as a whole; of one without, the depthwise part alone keeps its shape.
    assert modules_of(mobile, 3, 224, 224)[:3] == [
        ["features.1.conv.0"], ["features.2.conv.1", "features.3"], ["features.4.conv.1", "features.5", "features.6"],
    ]  # fmt: skip


# --- own nets ---


class Plain(nn.Module):
    """Convolution, normalization and ReLU as one module."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu()


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Named(nn.Module):
    """Blocks called by name, with no sequence around them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = Plain(4, 8), Plain(8, 8), Plain(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(nn.functional.max_pool2d(self.second(self.first(x)), 2))


def conv(channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=1)


NESTED = {
    "a run ends at the next spatial convolution": (
        nn.Sequential(conv(4, 8), nn.ReLU(), nn.Conv2d(8, 8, 1), conv(8, 8), nn.ReLU()),
        [["0 1 2", "3 4"]],
    ),
    "a run ends at the pool": (
        nn.Sequential(conv(4, 8), nn.ReLU(), nn.MaxPool2d(2), conv(8, 8)),
        [["0 1"], ["3"]],
    ),
    "modules": (nn.Sequential(Plain(4, 8), Plain(8, 8)), [["0", "1"]]),
    "sequences": (
        nn.Sequential(nn.Sequential(conv(4, 8), nn.ReLU()), nn.Sequential(conv(8, 8), nn.ReLU())),
        [["0", "1"]],
    ),
    "a sequence of two": (nn.Sequential(nn.Sequential(conv(4, 8), conv(8, 8)), Plain(8, 8)), [["0.0", "0.1", "1"]]),
    "called by name": (Named(), [["first", "second"], ["third"]]),
    "a residual sum around a sequence": (
        nn.Sequential(conv(4, 8), Residual(nn.Sequential(conv(8, 8), nn.ReLU(), conv(8, 8))), conv(8, 8)),
        [["1", "2"]],
    ),
    "a residual sum around a module": (nn.Sequential(conv(4, 8), Residual(Plain(8, 8))), [["1"]]),
}


@pytest.mark.parametrize(("net", "wanted"), NESTED.values(), ids=NESTED)
def test_own_nets(net: nn.Module, wanted: list[list[str]]) -> None:
    assert modules_of(net, 4, 12, 12) == wanted


# --- what is refused ---


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.once, self.again = Plain(4, 4), Plain(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.again(self.once(x)))


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(Plain(4, 4), Plain(4, 4), Plain(4, 4))
        self.body[2].conv.weight = self.body[1].conv.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Across(nn.Module):
    """A residual sum in the net's own forward, around two modules of it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right, self.last = Plain(4, 4), Plain(4, 4), Plain(4, 4), Plain(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(x + self.right(self.left(x)))


NO_MODULE = "it is in no module with one tensor in and one out that could be moved as a whole"
REFUSED = [
    (Twice(), [["once"]], {"again.conv": "again.conv is called 2 times"}),
    (
        Shared(),
        [["body.0"]],
        {
            "body.1.conv": "body.1.conv shares its weights with another module",
            "body.2.conv": "body.2.conv shares its weights with another module",
        },
    ),
    (Across(), [["last"]], {"left.conv": NO_MODULE, "right.conv": NO_MODULE}),
    (conv(4, 4), [[]], {"": NO_MODULE}),
]


@pytest.mark.parametrize(("net", "left", "refused"), REFUSED, ids=["twice", "shared", "across", "alone"])
def test_refusals(net: nn.Module, left: list[list[str]], refused: dict[str, str]) -> None:
    units, refusals = units_of(graph_of(net, 4, 12, 12))
    assert [[" ".join(unit.modules) for unit in stage] for stage in units] == left
    assert {refusal.layer: refusal.reason for refusal in refusals} == refused
