"""Copies of units that make more channels than they read: they read as many, and cost what is promised."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import convsmith as cs
from convsmith.plan import Plan, Repeat, Totals
from nets import graph_of

IMAGES = torch.rand(8, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def conv(channels: int, width: int, kernel: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, kernel, padding=kernel // 2, **options)


class Projected(nn.Module):
    """A residual unit with a projection in its shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(conv(4, 6), nn.BatchNorm2d(6), nn.ReLU(), conv(6, 10), nn.BatchNorm2d(10))
        self.shortcut = conv(4, 10, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.branch(x) + self.shortcut(x))


WIDENING: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Sequential(conv(4, 10), nn.BatchNorm2d(10), nn.ReLU()),
    "separable": lambda: nn.Sequential(
        conv(4, 4, groups=4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 10, 1), nn.BatchNorm2d(10), nn.ReLU()
    ),
    "norm first": lambda: nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), conv(4, 10), nn.ReLU()),
    "projected": Projected,
}


def net_of(unit: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(conv(3, 4), unit, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 5))
    for parameter in net.parameters():
        nn.init.uniform_(parameter, -0.5, 1)
    return net.eval()


def plan_of(net: nn.Module, *edits: Repeat) -> Plan:
    graph = graph_of(net, 3, 12, 12)
    return Plan(
        graph.model, (3, 12, 12), graph.fingerprint, Totals((), 0.0, graph.params, graph.macs), edits, ()
    )  # fmt: skip


@pytest.mark.parametrize("start", ["copy", "identity"])
@pytest.mark.parametrize("name", WIDENING)
def test_copies_read_what_the_unit_makes(name: str, start: str) -> None:
    net = net_of(WIDENING[name]())
    done = cs.rewrite(net, plan_of(net, Repeat(("1",), 2, start=start)))  # type: ignore[arg-type]
    assert (len(done.model), done.model.training, net[1](net[0](IMAGES)).shape[1]) == (7, False, 10)
    assert done.plan.new.params == sum(p.numel() for p in done.model.parameters())
    with FlopCounterMode(display=False) as counter:
        done.model(IMAGES[:1])
    assert done.plan.new.macs == counter.get_total_flops() // 2
    same = torch.allclose(done.model(IMAGES), net(IMAGES), rtol=1e-5, atol=1e-5)
    assert same == (start == "identity")


REFUSED = [
    (nn.Sequential(nn.Conv2d(4, 10, 3, 2, 1), nn.ReLU()), r"its map changes"),
    (nn.Sequential(conv(4, 4, groups=2), conv(4, 10)), r"conv2d of 1\.0 would have to be made wider"),
    (nn.Sequential(nn.PReLU(4), conv(4, 10)), r"prelu of 1\.0 would have to be made wider"),
    (nn.Sequential(nn.GroupNorm(2, 4), conv(4, 10)), r"group_norm of 1\.0 would have to be made wider"),
]


@pytest.mark.parametrize(("unit", "sentence"), REFUSED)
def test_what_cannot_be_made_wider_is_refused(unit: nn.Module, sentence: str) -> None:
    net = net_of(unit)
    told = rf"^1 cannot be repeated: its shape changes from 4x12x12 to 10x.*, {sentence}; take that edit out\.$"
    with pytest.raises(cs.PlanError, match=told):
        cs.apply(net, plan_of(net, Repeat(("1",), 1)))
