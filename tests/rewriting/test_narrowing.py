"""Narrowed nets: what reads the channels gone weighs them by zero, so outputs stay; shapes and costs are as told."""

from collections.abc import Mapping, Sequence
from copy import deepcopy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import convsmith as cs
from convsmith.graph.plain import copied
from convsmith.rewriting.narrowing import narrow, narrow_all
from convsmith.structure.channel_groups import ChannelGroup, find_groups
from convsmith.structure.widths import NOTHING, Widths
from convsmith.testing.oracles import torch_macs
from families import FAMILIES, CrossStage, Net, Residual, conv
from nets import graph_of

SETTINGS = settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
Kept = Mapping[tuple[str, ...], Sequence[int]]


def settled(net: nn.Module) -> nn.Module:
    """Norms that do something, as those of trained nets."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                assert tensor is not None
                nn.init.normal_(tensor)
            assert module.running_var is not None
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net.double().eval()


@st.composite
def kept_of(draw: st.DrawFn, group: ChannelGroup) -> list[int]:
    """Some of a group's atoms, and what has to stay."""
    free = {channel for atom in group.atoms for channel in atom}
    stays = [channel for channel in range(group.width) if channel not in free]
    atoms = draw(st.lists(st.sampled_from(group.atoms), min_size=0 if stays else 1, unique=True))
    return stays + [channel for atom in atoms for channel in atom]


def unread(net: nn.Module, groups: Sequence[ChannelGroup], kept: Kept) -> nn.Module:
    """The net with zeros where weights read what will be gone."""
    with torch.no_grad():
        for group in (group for group in groups if group.name in kept):
            for part in group.consumers:
                gone = [i for i, c in enumerate(part.channels) if c >= 0 and c not in kept[group.name]]
                net.get_parameter(part.tensor).index_fill_(part.dim, torch.tensor(gone, dtype=torch.long), 0)
    return net


def hold_narrowed(net: nn.Module, x: Tensor, kept: Kept) -> None:
    """Outputs, shapes and costs of a narrowed net are what they should be."""
    graph = cs.capture(net, x)
    widths = Widths.of(graph)
    gone = NOTHING
    for name, channels in kept.items():
        gone = widths.without(widths.group(name), channels, gone)
    before = unread(deepcopy(net), widths.groups, kept)
    after = deepcopy(before)
    new = narrow_all(after, widths, kept)
    with torch.no_grad():
        torch.testing.assert_close(after(x), before(x))
    assert new.macs == sum(widths.macs(node, gone) for node in graph.nodes) == torch_macs(after, x[:1])
    assert new.params == sum(parameter.numel() for parameter in after.parameters())
    if len(kept) == 1:
        ((name, _),) = kept.items()
        group = widths.group(name)
        assert new.params - graph.params == widths.cost(group, gone)[0] - widths.cost(group)[0]


@pytest.mark.parametrize("family", FAMILIES)
@SETTINGS
@given(st.data())
def test_a_narrowed_net_is_the_one_whose_layers_read_zeros(family: str, data: st.DataObject) -> None:
    torch.manual_seed(0)
    net, x = settled(FAMILIES[family]()), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    groups, _ = find_groups(cs.capture(net, x))
    some = data.draw(st.lists(st.sampled_from(groups), min_size=1, unique_by=lambda group: group.name))
    hold_narrowed(net, x, {group.name: data.draw(kept_of(group)) for group in some})


def net_of(name: str) -> nn.Module:
    module, _, net = name.partition("/")
    if module == "timm":
        return settled(pytest.importorskip("timm").create_model(net, num_classes=7))
    return settled(pytest.importorskip("torchvision").models.get_model(net, num_classes=7))


@pytest.mark.parametrize(
    "name",
    [
        "torchvision/resnet18", "torchvision/mobilenet_v2", "torchvision/shufflenet_v2_x0_5", "torchvision/vgg11_bn",
        "timm/tf_efficientnet_lite0", "timm/efficientnet_b0", "timm/ghostnet_100", "timm/res2net50_26w_4s",
        "timm/skresnet18", "timm/regnety_002", "timm/cspresnet50", "timm/ecaresnet26t", "timm/convnext_atto",
    ],
)  # fmt: skip
def test_published_nets_are_narrowed_by_halves(name: str) -> None:
    torch.manual_seed(0)
    net, x = net_of(name), torch.randn(1, 3, 64, 64, dtype=torch.float64)
    groups, _ = find_groups(cs.capture(net, x))
    assert len(groups) > 4
    kept = {}
    for group in groups:
        free = {channel for atom in group.atoms for channel in atom}
        half = [channel for atom in group.atoms[: (len(group.atoms) + 1) // 2] for channel in atom]
        kept[group.name] = [channel for channel in range(group.width) if channel not in free] + half
    hold_narrowed(net, x, kept)


def test_modules_tell_the_sizes_that_they_have() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16), nn.PReLU(16), nn.Conv2d(16, 32, 3, groups=16), nn.GroupNorm(4, 32),
        nn.ConvTranspose2d(32, 8, 2), nn.Flatten(), nn.Linear(8 * 49, 5),
    )  # fmt: skip
    graph = graph_of(net, 3, 8, 8)
    groups, _ = find_groups(graph)
    narrow_all(net, Widths.of(graph), {groups[0].name: range(8), groups[1].name: range(6)})
    assert [str(module) for module in net] == [
        "Conv2d(3, 8, kernel_size=(1, 1), stride=(1, 1))",
        str(nn.BatchNorm2d(8)), "PReLU(num_parameters=8)",
        "Conv2d(8, 16, kernel_size=(3, 3), stride=(1, 1), groups=8)",
        str(nn.GroupNorm(2, 16)),
        "ConvTranspose2d(16, 6, kernel_size=(2, 2), stride=(1, 1))",
        "Flatten(start_dim=1, end_dim=-1)", "Linear(in_features=294, out_features=5, bias=True)",
    ]  # fmt: skip


def test_parameters_stay_parameters_and_frozen_ones_frozen() -> None:
    net = conv(3, 8).append(nn.Conv2d(8, 4, 1))
    net[0].weight.requires_grad_(False)
    graph = graph_of(net, 3, 8, 8)
    narrow(net, graph, find_groups(graph)[0][0], [1, 3])
    assert {name: (len(x), x.requires_grad) for name, x in net.named_parameters()} == {
        "0.weight": (2, False), "1.weight": (2, True), "1.bias": (2, True), "3.weight": (4, True), "3.bias": (4, True),
    }  # fmt: skip
    assert net[1].running_mean.shape == net[1].running_var.shape == (2,)
    assert "1.running_mean" in net.state_dict()


def test_a_size_that_a_module_keeps_and_forward_reads_is_set() -> None:
    net = Net(CrossStage(baked=True)).eval()
    graph = graph_of(net, 3, 8, 8)
    group = Widths.of(graph).group(["body.enter.0", "body.inside.inside.1.0"])
    narrow(net, graph, group, [0, 1, 2, 8, 9, 10])
    assert isinstance(net.body, CrossStage)
    assert net.body.half == 3


# --- refusals ---


class Literal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = conv(16, 16), conv(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.first(x).view(-1, 16, 8, 8))
        return out


class Halved(nn.Module):
    """Reads the first half by a number: of a narrower map that would be more than half."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = conv(16, 16), conv(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        out: Tensor = self.last(torch.cat([y[:, :8], y[:, 8:]], 1))
        return out


@pytest.mark.parametrize("body", [Literal, Halved])
def test_a_width_written_into_forward_is_refused(body: type[nn.Module]) -> None:
    net = Net(body())
    graph = graph_of(net, 3, 8, 8)
    group = Widths.of(graph).group(["body.first.0"])
    with pytest.raises(cs.PlanError, match=r"body.first.0 cannot be narrowed: .*counts on the width"):
        narrow(copied(net), graph, group, group.atoms[0] + group.atoms[1])


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ([], "keep some of those"), ([0, 16], "has channels 0 to 15"), ([0], "channels 0, 8 can only go together"),
    ],
)  # fmt: skip
def test_channels_that_cannot_be_kept_alone(kept: list[int], said: str) -> None:
    net = Net(CrossStage())
    graph = graph_of(net, 3, 8, 8)
    group = Widths.of(graph).group(["body.enter.0", "body.inside.inside.1.0"])
    with pytest.raises(cs.PlanError, match=said):
        narrow(net, graph, group, kept)


class Partly(nn.Module):
    """Zeros beside channels, as in ResNets of CIFAR: what is added to these has to stay."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Sequential(conv(16, 24), conv(24, 24))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = nn.functional.pad(x, (0, 0, 0, 0, 4, 4)) + self.inside(x)
        return out


def test_channels_that_have_to_stay() -> None:
    net = Net(Partly(), 24)
    graph = graph_of(net, 3, 8, 8)
    group = Widths.of(graph).group(["stem.0", "body.inside.1.0"])
    assert (group.width, group.stays, len(group.atoms)) == (24, 8, 16)
    with pytest.raises(cs.PlanError, match=r"channel \d+ has to stay: add of body joins them"):
        narrow(net, graph, group, group.atoms[0])


def test_a_group_is_named_by_all_that_make_it() -> None:
    widths = Widths.of(graph_of(Net(Residual(nn.Sequential(conv(16, 8), conv(8, 16)))), 3, 8, 8))
    for name, said in [
        ("head", "head cannot be narrowed: head: its channels are those of the model's output"),
        ("stem.0", r"its group is stem.0 \+ body.inside.1.0"),
        ("nowhere", "nowhere is no group of channels of this model"),
    ]:
        with pytest.raises(cs.PlanError, match=said):
            widths.group([name])
