"""Reach on its own: joins with what is not known, batch dimensions, blank parts, and what extent() tells."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import convsmith as cs
from convsmith.reach import Reach
from convsmith.windows import Taps
from oracles import disagreements, transparent

MAP = (4, 7, 6)
Function = Callable[[Tensor], Tensor]


class Behind(nn.Module):
    """A grouped convolution, so that channels differ in what they see, and a function behind it."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


def graph_of(function: Function) -> tuple[nn.Module, cs.Graph]:
    net = transparent(Behind(function))
    return net, cs.capture(net, torch.zeros(1, *MAP, dtype=torch.float64))


def zeros(*shape: int) -> Tensor:
    return torch.zeros(1, *shape, dtype=torch.float64)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.cat([x, zeros(4, 2, 6)], 2),
        lambda x: torch.cat([zeros(4, 7, 9), x], 3),
        lambda x: torch.cat([x, zeros(2, 7, 6)], 1),
        lambda x: torch.cat([zeros(7, 1, 6), x.permute(0, 2, 1, 3)], 2),
    ],
    ids=["below", "wider, in front", "channels", "channels, permuted"],
)
def test_what_sees_nothing_keeps_its_place(function: Function) -> None:
    net, graph = graph_of(function)
    reach = graph.reaches()[graph.outputs[0]]
    assert reach.shape == graph.shapes[graph.outputs[0]][1:]
    assert list(disagreements(net, MAP, reach)) == []


@pytest.mark.parametrize(
    ("op", "function"),
    [
        ("aten.roll.default", lambda x: x.roll(3)),
        ("aten.roll.default", lambda x: x.roll(1, 0)),
        ("aten.mean.dim", lambda x: x.mean(0)),
        ("aten.mean.dim", lambda x: x.mean([])),
        ("aten.amax.default", lambda x: x.amax()),
        ("aten.sum.dim_IntList", lambda x: x.sum((0, 1))),
        ("aten.cat.default", lambda x: torch.cat([x, x], 0)),
        ("aten.split.Tensor", lambda x: x.split(1, 0)[0]),
        ("aten.softmax.int", lambda x: x.softmax(0)),
        ("aten.transpose.int", lambda x: x.transpose(0, 1)),
        ("aten.permute.default", lambda x: x.permute(1, 0, 2, 3)),
        ("aten.reshape.default", lambda x: x.reshape(2, 2, 7, 6)),
    ],
)
def test_what_mixes_the_batch_has_no_answer(op: str, function: Function) -> None:
    _, graph = graph_of(function)
    assert graph.unknown_ops == {op: 1}
    assert graph.outputs[0] not in graph.reaches()


@pytest.mark.parametrize(
    ("op", "function"),
    [
        ("aten.pad.default", lambda x: x + F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)),
        ("aten.cumsum.default", lambda x: torch.cat([x, x.cumsum(2)], 1)),
        ("aten.fft_rfft2.default", lambda x: x.sum((2, 3), keepdim=True) * torch.fft.rfft2(x).abs()),
    ],
    ids=["reflected", "summed", "spectrum"],
)
def test_a_join_with_what_is_not_known_is_not_known_and_not_blamed(op: str, function: Function) -> None:
    _, graph = graph_of(function)
    assert graph.unknown_ops == {op: 1}
    assert graph.outputs[0] not in graph.reaches()


def test_an_extent_is_the_hull_over_channels_the_widest_position_and_the_mean_of_channels() -> None:
    x = Reach.source((4, 9, 5))
    left = x.select(1, Taps.slide(9, kernel=3, padding=1)).select(0, Taps.groups(4, 2)).repeat(0, 2)
    assert left.extent().window == (3, 1)
    assert left.extent().channels == 2
    wide = left.join(x.select(2, Taps.slide(5, kernel=5, padding=2)))
    assert wide.extent().window == (3, 5)
    assert wide.extent().volume == 2 * 3 * 5
    both = x.concatenate(wide, 0)
    assert both.shape == (8, 9, 5)
    assert both.extent().channels == 1.5
    assert both.extent().gated is False
    assert both.concatenate(x.with_gate(), 0).extent().gated is True


def test_a_window_is_clamped_by_the_map_and_the_free_one_is_not() -> None:
    x = Reach.source((1, 6, 6))
    for _ in range(4):
        x = x.select(1, Taps.slide(x.shape[1], kernel=3, padding=1))
    assert (x.extent().window, x.extent().window_free) == ((6, 1), (9, 1))
    assert x.at((0, 0, 0))[1][0] == (0, 4)
    assert x.at((0, 5, 0))[1][0] == (1, 5)
