"""Units put in that change nothing at first: outputs stay, all that is new learns, and what cannot be is refused."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import convsmith as cs
from convsmith.plan import Plan, Repeat, Replace, Totals
from nets import graph_of


def conv(channels: int, width: int, kernel: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, kernel, padding=kernel // 2, **options)


class Residual(nn.Module):
    """`act` behind the sum is that of a basic block; None that of a linear bottleneck."""

    def __init__(self, branch: nn.Module, act: nn.Module | None = None) -> None:
        super().__init__()
        self.branch, self.act = branch, act

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.branch(x)
        return x if self.act is None else self.act(x)


class Scaled(nn.Module):
    """A branch with a layer scale, as in ConvNeXt."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise, self.norm = conv(width, width, 7, groups=width), nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.narrow(F.gelu(self.wide(y)))).permute(0, 3, 1, 2)


class Gated(nn.Module):
    """A branch that ends in squeeze and excitation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.norm, self.gate = conv(width, width), nn.BatchNorm2d(width), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return F.relu(x + y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True))))


class ThreeBranches(nn.Module):
    """RepVGG while it is trained: two convolutions and a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = nn.Sequential(conv(width, width), nn.BatchNorm2d(width))
        self.narrow = nn.Sequential(conv(width, width, 1), nn.BatchNorm2d(width))
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.wide(x) + self.narrow(x) + self.norm(x))


def with_norms(*layers: nn.Module, width: int, act: type[nn.Module] = nn.ReLU, last: bool = False) -> nn.Sequential:
    """Convolutions with a BatchNorm behind each and an activation between; `last`: one at the end too."""
    found: list[nn.Module] = []
    for layer in layers:
        channels = layer.out_channels if isinstance(layer, nn.Conv2d) else width
        found += [layer, nn.BatchNorm2d(channels), act()]
    return nn.Sequential(*(found if last else found[:-1]))


W = 8
UNITS: dict[str, Callable[[], nn.Module]] = {
    "basic": lambda: Residual(with_norms(conv(W, W), conv(W, W), width=W), nn.ReLU()),
    "bottleneck": lambda: Residual(
        with_norms(conv(W, 4, 1), conv(4, 4), conv(4, W, 1), width=W), nn.ReLU(inplace=True)
    ),
    "pre-activation": lambda: Residual(
        nn.Sequential(nn.BatchNorm2d(W), nn.ReLU(), conv(W, W), nn.BatchNorm2d(W), nn.ReLU(), conv(W, W))
    ),
    "inverted": lambda: Residual(
        with_norms(conv(W, 16, 1), conv(16, 16, groups=16), conv(16, W, 1), width=W, act=nn.ReLU6)
    ),
    "no norms": lambda: Residual(nn.Sequential(conv(W, W), nn.ReLU(), conv(W, W)), nn.ReLU()),
    "layer scale": lambda: Scaled(W),
    "gated": lambda: Gated(W),
    "RepVGG": lambda: ThreeBranches(W),
    "VGG": lambda: nn.Sequential(conv(W, W), nn.ReLU()),
    "VGG with norms": lambda: with_norms(conv(W, W), width=W, last=True),
    "dilated": lambda: nn.Sequential(nn.Conv2d(W, W, 3, padding=2, dilation=2), nn.ReLU()),
    "groups, norm without weights": lambda: nn.Sequential(
        conv(W, W, 5, groups=2), nn.BatchNorm2d(W, affine=False), nn.ReLU()
    ),
    "separable": lambda: with_norms(conv(W, W, groups=W), conv(W, W, 1), width=W, act=nn.ReLU6, last=True),
    "dropout": lambda: nn.Sequential(conv(W, W), nn.ReLU(), nn.Dropout(0.3)),
}


def net_of(unit: nn.Module) -> nn.Sequential:
    """A net around a unit, with weights and statistics that are none of the start."""
    torch.manual_seed(0)
    net = nn.Sequential(conv(3, W), nn.BatchNorm2d(W), nn.ReLU(), unit, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                        nn.Linear(W, 5))  # fmt: skip
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        if norm.track_running_stats:
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
        if norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
    return net.eval()


def plan_of(net: nn.Module, *edits: Repeat, side: int = 12) -> Plan:
    graph = graph_of(net, 3, side, side)
    base = Totals((), 0.0, graph.params, graph.macs)
    return Plan(graph.model, (3, side, side), graph.fingerprint, base, edits, ())


IMAGES = torch.rand(32, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("data", [None, IMAGES])
@pytest.mark.parametrize("name", UNITS)
def test_outputs_stay_and_all_that_is_new_learns(name: str, data: Tensor | None) -> None:
    net = net_of(UNITS[name]())
    new = cs.apply(net, plan_of(net, Repeat(("3",), 2, start="identity")), data=data)
    assert len(new) == 9
    assert torch.allclose(new(IMAGES), net(IMAGES), rtol=1e-5, atol=1e-5)
    # a bias in front of a norm that takes the batch's mean off has no gradient
    added = {name: p for name, p in new.named_parameters() if name[0] in "45" and "bias" not in name}
    begin = {name: p.detach().clone() for name, p in added.items()}
    optimizer = torch.optim.SGD(new.train().parameters(), lr=1.0)
    for _ in range(2):  # the first step moves what was set to zero, the second what stands before that
        optimizer.zero_grad()
        F.cross_entropy(new(IMAGES), torch.arange(32) % 5).backward()
        optimizer.step()
        changed = {name for name, p in added.items() if not torch.equal(p, begin[name])}
        assert {name[0] for name in changed} == {"4", "5"}
    assert changed == added.keys()
    assert not torch.allclose(new.eval()(IMAGES), net(IMAGES), atol=1e-3)


@pytest.mark.parametrize("name", ["VGG with norms", "separable", "RepVGG"])
def test_with_images_norms_hold_in_training_too(name: str) -> None:
    """Set by what they see, norms change little where a batch's own statistics take their place."""
    net = net_of(UNITS[name]())
    plan = plan_of(net, Repeat(("3",), 1, start="identity"))
    missed = []
    for data in (None, IMAGES):
        new = cs.apply(net, plan, data=data)
        seen = new[:4](IMAGES).detach()
        missed.append(float((new[4].train()(seen).detach() - seen).square().mean() / seen.square().mean()))
    assert missed[1] < 1e-6 < 1e-2 < missed[0]


SHIPPED = [
    ("torchvision convnext", lambda: torchvision.models.convnext_tiny(), ("features.1.2",)),
    ("torchvision mobilenet_v2", lambda: torchvision.models.mobilenet_v2(), ("features.3",)),
    ("torchvision vgg11_bn", lambda: torchvision.models.vgg11_bn(), ("features.11", "features.12", "features.13")),
    ("torchvision resnet50", lambda: torchvision.models.resnet50(), ("layer1.2",)),
    ("timm preact", lambda: timm.create_model("resnetv2_50"), ("stages.0.blocks.2",)),
    ("timm efficientnet_b0", lambda: timm.create_model("efficientnet_b0"), ("blocks.1.1",)),
    ("timm ecaresnet", lambda: timm.create_model("ecaresnet26t"), ("layer1.1",)),
]


@pytest.mark.parametrize(("name", "build", "unit"), SHIPPED, ids=[name for name, _, _ in SHIPPED])
def test_outputs_of_shipped_nets_stay(name: str, build: Callable[[], nn.Module], unit: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    net, images = build().eval(), torch.rand(2, 3, 64, 64)
    new = cs.apply(net, plan_of(net, Repeat(unit, 1, start="identity"), side=64))
    assert sum(p.numel() for p in new.parameters()) > sum(p.numel() for p in net.parameters())
    before = net(images).detach()
    assert torch.allclose(new(images), before, rtol=1e-5, atol=1e-5 * float(before.abs().max()))


@given(
    st.lists(st.sampled_from(sorted(UNITS)), min_size=1, max_size=3),
    st.lists(st.integers(0, 2), min_size=3, max_size=3),
)
@settings(max_examples=12, deadline=None)
def test_any_units_any_number_of_times(names: list[str], times: list[int]) -> None:
    units = nn.Sequential(*(UNITS[name]() for name in names))
    net = net_of(units)
    edits = [Repeat((f"3.{i}",), n, start="identity") for i, (_, n) in enumerate(zip(names, times, strict=False)) if n]
    plan = plan_of(net, *edits)
    assert Plan.from_json(plan.to_json()) == plan
    assert torch.allclose(cs.apply(net, plan)(IMAGES), net(IMAGES), rtol=1e-4, atol=1e-4)


def test_a_copy_is_what_it_was() -> None:
    net = net_of(UNITS["VGG"]())
    plan = plan_of(net, Repeat(("3",), 1))
    assert torch.equal(cs.apply(net, plan)[4][0].weight, net[3][0].weight)
    assert cs.Plan.from_json(plan.to_json().replace('"start": "copy",', "")) == plan  # plans of before
    assert replace(plan.edits[0], start="identity") != plan.edits[0]


class Shuffled(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = conv(width // 2, width // 2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        return torch.cat([a, F.relu(self.conv(b))], 1)


REFUSED = [
    (lambda: nn.Sequential(nn.ReLU(), conv(W, W)), r"relu of 3\.0 would cut what it reads"),
    (lambda: nn.Sequential(conv(W, W), nn.SiLU()), r"it ends in silu of 3\.1, which cannot be made to pass on"),
    (lambda: nn.Sequential(conv(W, W), nn.ReLU(), conv(W, W), nn.ReLU6(), conv(W, W)), r"hardtanh of 3\.3 would cut"),
    (lambda: nn.Sequential(conv(W, 4), nn.ReLU(), conv(4, W), nn.ReLU()), r"conv2d of 3\.0 changes channels or"),
    (lambda: nn.Sequential(conv(W, W), nn.GroupNorm(2, W), nn.ReLU()), r"it ends in group_norm of 3\.1"),
    (lambda: nn.Sequential(conv(W, W), nn.BatchNorm2d(W, track_running_stats=False), nn.ReLU()), r"keeps no stat"),
    (lambda: Residual(with_norms(conv(W, W), width=W, last=True)), r"relu of 3\.branch\.2 ends its branch, and"),
    (lambda: Residual(nn.Sequential(conv(W, W), nn.BatchNorm2d(W, affine=False))), r"has no weight of its own"),
    (lambda: Residual(nn.Sequential(conv(W, W), nn.Softplus())), r"behind which nothing can be made zero"),
    (lambda: Shuffled(W), r"it ends in cat of 3"),
]  # fmt: skip


@pytest.mark.parametrize(("build", "sentence"), REFUSED)
def test_what_cannot_start_as_an_identity_is_refused(build: Callable[[], nn.Module], sentence: str) -> None:
    net = net_of(build())
    told = rf"^3 cannot start as an identity: .*{sentence}.*; take that edit out, or start it as copy\.$"
    with pytest.raises(cs.PlanError, match=told):
        cs.apply(net, plan_of(net, Repeat(("3",), 1, start="identity")))
    assert len(cs.apply(net, plan_of(net, Repeat(("3",), 1)))) == 8


def test_a_block_in_the_unit_that_has_no_identity_is_refused() -> None:
    net = net_of(UNITS["VGG"]())
    edits = [Replace("3.0", "dw-pw:r=1"), Repeat(("3",), 1, start="identity")]
    plan = replace(plan_of(net), edits=tuple(edits))
    assert torch.allclose(
        *(cs.apply(net, each)(IMAGES) for each in (plan, replace(plan, edits=(edits[0],)))), atol=1e-5
    )
    low_rank = replace(plan, edits=(replace(edits[0], block="channel:r=2"), edits[1]))
    with pytest.raises(cs.PlanError, match=r"3 cannot start as an identity: conv2d of 3\.0"):
        cs.apply(net, low_rank)


@pytest.mark.parametrize("start", ["Identity", "", None])
def test_an_unknown_start_is_refused(start: str | None) -> None:
    with pytest.raises(cs.PlanError, match=r"Repeat: start: got"):
        Repeat(("3",), 1, start=start)  # type: ignore[arg-type]
