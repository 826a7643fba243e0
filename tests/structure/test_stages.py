"""Stages of the zoo's nets, torchvision's nets and small own ones."""

from collections import OrderedDict

import pytest
import torch
import torchvision
from torch import Tensor, nn

import convsmith as cs
from convsmith.structure.stages import Stages, find_stages, has_stem, is_depthwise, is_spatial
from convsmith.zoo import NETS
from nets import graph_of


def stages_of(graph: cs.Graph) -> Stages:
    return find_stages(graph, graph.reaches())


def counts_and_maps(graph: cs.Graph) -> list[tuple[int, tuple[int, ...]]]:
    return [(len(stage.counted), stage.map) for stage in stages_of(graph).stages]


# Counted convolutions a stage, and the side of the map that enters the first, at 32x32 and at 224x224. A unit of
# resnet50 has one counted convolution, one of the other residual nets two; nets of one form run on both sides.
VGG = ((32, 16, 8, 4, 2), (224, 112, 56, 28, 14))
NARROW = ((32, 32, 16), (224, 224, 112))
ZOO = {
    "vgg11": ((1, 1, 2, 2, 2), *VGG),
    "vgg16": ((2, 2, 3, 3, 3), *VGG),
    "vgg19": ((2, 2, 4, 4, 4), *VGG),
    "vgg16-wa": ((2, 2, 3, 3, 3), *VGG),
    "vgg19-wa": ((2, 2, 4, 4, 4), *VGG),
    "mobilenet": ((1, 2, 2, 6, 2), (32, 32, 16, 8, 4), (112, 112, 56, 28, 14)),
    "mobilenet-wa": ((1, 2, 2, 6, 2), (32, 32, 16, 8, 4), (224, 224, 112, 56, 28)),
    "resnet18": ((4, 4, 4, 4), (32, 32, 16, 8), (56, 56, 28, 14)),
    "resnet50": ((3, 4, 6, 3), (32, 32, 16, 8), (56, 56, 28, 14)),
    "resnet50-wa": ((3, 4, 6, 3), (32, 32, 16, 8), (224, 224, 112, 56)),
    "resnet20": ((6, 6, 6), *NARROW),
    "resnet32": ((10, 10, 10), *NARROW),
    "resnet44": ((14, 14, 14), *NARROW),
    "resnet56": ((18, 18, 18), *NARROW),
    "resnet34": ((6, 8, 12, 6), (32, 32, 16, 8), (56, 56, 28, 14)),
    "resnet101": ((3, 4, 23, 3), (32, 32, 16, 8), (56, 56, 28, 14)),
}
# With attention they have the stages that they have without.
ZOO |= {f"eca-{name}": ZOO[name] for name in ("resnet18", "resnet34", "resnet50", "resnet101")}


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize(("side", "form"), [(32, 1), (224, 2)])
def test_zoo_nets(name: str, side: int, form: int) -> None:
    with torch.device("meta"):
        graph = graph_of(cs.build(name, input=(3, side, side)), 3, side, side)
    wanted = [(count, (width, width)) for count, width in zip(ZOO[name][0], ZOO[name][form], strict=True)]
    assert counts_and_maps(graph) == wanted


# The same where the forms differ in counts as well. A DiCE unit has four counted convolutions (three planes and the
# fusion), the strided block one more; a striding unit of ShuffleNet has one on either branch. Shifts count nothing.
INVERTED = (
    [(3, 32), (3, 32), (7, 16), (4, 8)],
    [(1, 112), (2, 112), (3, 56), (7, 28), (4, 14)],
)
SHUFFLED = (
    [(5, 32), (9, 16), (5, 8)],
    # the first side branch strides right behind the pool, with no layer between, so both are one change of the map
    [(1, 56), (4, 56), (9, 28), (5, 14)],
)
FORMS = {
    **dict.fromkeys(("mobilenetv2", "antnet", "antnet-g2", "eca-mobilenetv2"), INVERTED),
    **dict.fromkeys((f"shufflenetv2-{width}" for width in ("0.5", "1.0", "1.5", "2.0")), SHUFFLED),
    **dict.fromkeys(
        (name for name in NETS if name.startswith("dicenet")),
        ([(17, 32), (33, 16), (17, 8)], [(17, 56), (33, 28), (17, 14)]),
    ),
    "addressnet": ([], []),
    "addressnet-enhanced": ([(1, 32)], [(1, 224)]),  # nothing is added, so the stem counts, as in VGG
}


@pytest.mark.parametrize("name", [name for name in FORMS if not name.startswith("dicenet") or name == "dicenet-0.2"])
@pytest.mark.parametrize(("side", "form"), [(32, 0), (224, 1)])
def test_zoo_nets_of_two_forms(name: str, side: int, form: int) -> None:
    with torch.device("meta"):
        graph = graph_of(cs.build(name, input=(3, side, side)), 3, side, side)
    assert counts_and_maps(graph) == [(count, (width, width)) for count, width in FORMS[name][form]]


def test_every_net_of_these_tables_is_in_the_zoo() -> None:
    assert set(ZOO) | set(FORMS) <= set(NETS)  # others are judged by tests/testing


# Worked out from the papers' tables of layers: MobileNetV2 has 17 bottlenecks, of which the strided ones start a stage;
# DenseNet-121 has no residual sum, so its first convolution is counted; SqueezeNet pools thrice without padding.
TORCHVISION = {
    "resnet18": [(4, 56), (4, 56), (4, 28), (4, 14)],
    "mobilenet_v2": [(1, 112), (2, 112), (3, 56), (7, 28), (4, 14)],
    "mobilenet_v3_small": [(1, 112), (2, 56), (5, 28), (3, 14)],
    "densenet121": [(1, 224), (6, 56), (12, 28), (24, 14), (16, 7)],
    "squeezenet1_1": [(1, 224), (2, 55), (2, 27), (4, 13)],
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_nets(name: str) -> None:
    with torch.device("meta"):
        graph = graph_of(torchvision.models.get_model(name, weights=None), 3, 224, 224)
    assert counts_and_maps(graph) == [(count, (width, width)) for count, width in TORCHVISION[name]]
    assert graph.unknown_ops == {}


# --- gates ---


class SqueezeExcite(nn.Module):
    """A gate from the mean over the map, by two 1x1 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Conv2d(channels, 2, 1), nn.ReLU(), nn.Conv2d(2, channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean((2, 3), keepdim=True))


class ChannelAttention(nn.Module):
    """A gate from the mean over the map, by a convolution of three taps along the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.along = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.along(x.mean((2, 3)).unsqueeze(1)).sigmoid()
        return x * gate.view(gate.shape[0], gate.shape[2], 1, 1)


def conv(channels: int, width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, stride, padding=1)


@pytest.mark.parametrize("gate", [SqueezeExcite, ChannelAttention])
def test_a_gate_does_not_split_a_stage_and_counts_nothing(gate: type[nn.Module]) -> None:
    def net(between: nn.Module) -> nn.Module:
        return nn.Sequential(conv(4, 8), conv(8, 8), between, conv(8, 8), conv(8, 8, stride=2), conv(8, 8))

    graph = graph_of(net(gate(8)), 4, 12, 12)
    stages = stages_of(graph)
    assert [len(stage.counted) for stage in stages.stages] == [3, 2]
    assert counts_and_maps(graph) == counts_and_maps(graph_of(net(nn.Identity()), 4, 12, 12))
    assert {stages.name_of(node) for node in graph.layers if node.module.startswith("2.")} == {"stage1"}
    assert cs.score(graph).gain == pytest.approx(cs.score(graph_of(net(nn.Identity()), 4, 12, 12)).gain)


# --- what starts a stage ---

STEPS = {
    "a stride": ([conv(4, 4), conv(4, 4, stride=2), conv(4, 4)], [(1, (12, 12)), (2, (12, 12))]),
    "a pool": ([conv(4, 4), nn.MaxPool2d(2), conv(4, 4)], [(1, (12, 12)), (1, (6, 6))]),
    "two pools in a row": ([conv(4, 4), nn.MaxPool2d(2), nn.AvgPool2d(2), conv(4, 4)], [(1, (12, 12)), (1, (3, 3))]),
    "no padding": ([conv(4, 4), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)], [(1, (12, 12)), (1, (12, 12)), (1, (10, 10))]),
    "one axis": ([conv(4, 4), nn.AvgPool2d((1, 2)), conv(4, 4)], [(1, (12, 12)), (1, (12, 6))]),
    "a pool that keeps the map": ([conv(4, 4), nn.MaxPool2d(3, 1, padding=1), conv(4, 4)], [(2, (12, 12))]),
    "1x1 alone": ([nn.Conv2d(4, 4, 1), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1)], []),
    "1x1 at a stage's start": ([conv(4, 4), nn.Conv2d(4, 4, 1, 2), conv(4, 4)], [(1, (12, 12)), (1, (6, 6))]),
}


@pytest.mark.parametrize(("layers", "wanted"), STEPS.values(), ids=STEPS)
def test_what_starts_a_stage(layers: list[nn.Module], wanted: list[tuple[int, tuple[int, int]]]) -> None:
    assert counts_and_maps(graph_of(nn.Sequential(*layers), 4, 12, 12)) == wanted


class Halves(nn.Module):
    """Splits channels, convolves one half, and joins them again."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.own = conv(channels // 2, channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, 1)
        return torch.cat([kept, self.own(changed)], 1)


def test_a_split_keeps_its_stage() -> None:
    graph = graph_of(nn.Sequential(conv(4, 8), Halves(8), nn.MaxPool2d(2), Halves(8), Halves(8)), 4, 12, 12)
    assert counts_and_maps(graph) == [(2, (12, 12)), (2, (6, 6))]


# --- the stem and the head ---


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


STEMS = {
    "plain": ([conv(4, 8), conv(8, 8)], False),
    "grouped": ([conv(4, 8), nn.Conv2d(8, 8, 3, groups=2, padding=1)], False),
    "concatenation": ([conv(4, 8), Halves(8)], False),
    "residual": ([conv(4, 8), Residual(8)], True),
    "depthwise": ([conv(4, 8), nn.Conv2d(8, 8, 3, groups=8, padding=1)], True),
}


@pytest.mark.parametrize(("layers", "stem"), STEMS.values(), ids=STEMS)
def test_a_stem_stands_before_depthwise_convolutions_and_residual_sums(layers: list[nn.Module], stem: bool) -> None:
    graph = graph_of(nn.Sequential(*layers), 4, 12, 12)
    stages = stages_of(graph)
    assert has_stem(graph) == stem
    assert stages.name_of(graph.layers[0]) == ("stem" if stem else "stage1")
    assert len(stages.stages[0].counted) == (1 if stem else 2)


def test_behind_the_last_stage_is_the_head() -> None:
    head = OrderedDict(pool=nn.AdaptiveAvgPool2d(1), mix=nn.Conv2d(8, 8, 1), flat=nn.Flatten(), out=nn.Linear(8, 3))
    graph = graph_of(nn.Sequential(OrderedDict(conv=conv(4, 8), act=nn.ReLU(), **head)), 4, 12, 12)
    stages = stages_of(graph)
    assert {node.module: stages.name_of(node) for node in graph.nodes} == {
        "conv": "stage1", "act": "stage1", "pool": "head", "mix": "head", "flat": "head", "out": "head",
    }  # fmt: skip


KINDS = {
    "3x3": (conv(4, 4), True, False),
    "1x3": (nn.Conv2d(4, 4, (1, 3)), True, False),
    "1x1": (nn.Conv2d(4, 4, 1), False, False),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), True, True),
    "depthwise 1x1": (nn.Conv2d(4, 4, 1, groups=4), False, False),
    "grouped": (nn.Conv2d(4, 4, 3, groups=2), True, False),
    "one channel": (nn.Conv2d(1, 4, 3), True, False),
    "linear": (nn.Linear(6, 2), False, False),
}


@pytest.mark.parametrize(("module", "spatial", "depthwise"), KINDS.values(), ids=KINDS)
def test_kinds_of_layers(module: nn.Module, spatial: bool, depthwise: bool) -> None:
    channels = module.in_channels if isinstance(module, nn.Conv2d) else 4
    (node,) = graph_of(module, channels, 6, 6).layers
    assert (is_spatial(node), is_depthwise(node)) == (spatial, depthwise)
