"""Reach on its own: joins with what is not known, batch dimensions, blank parts, and what extent() tells."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import convsmith as cs
from convsmith.reach import PLACES, Reach
from convsmith.reach.unions import concatenate, union
from convsmith.reach.windows import Taps
from convsmith.score.advice import advise
from convsmith.testing.oracles import disagreements, transparent

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
    assert reach.shape == graph.shapes[graph.outputs[0]]
    assert list(disagreements(net, MAP, reach)) == []


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.roll(3),
        lambda x: x.roll(1, 0),
        lambda x: x.mean(0),
        lambda x: x.sum((0, 1)),
        lambda x: torch.cat([x, x * 2], 0),
        lambda x: x.split(1, 0)[0],
        lambda x: x.transpose(0, 1),
        lambda x: x.permute(1, 0, 2, 3),
        lambda x: x.reshape(2, 2, 7, 6),
        lambda x: x.reshape(2, 2, 7, 6).sum(0, keepdim=True),
        lambda x: x.reshape(4, 1, 7, 6).permute(2, 1, 0, 3).reshape(1, 7, 4, 6),
    ],
)
def test_the_batch_is_a_dimension_like_others(function: Function) -> None:
    net, graph = graph_of(function)
    reach = graph.reaches()[graph.outputs[0]]
    assert reach.shape == graph.shapes[graph.outputs[0]]
    assert list(disagreements(net, MAP, reach)) == []


@pytest.mark.parametrize(
    ("op", "function"),
    [
        ("aten.renorm.default", lambda x: x + F.avg_pool2d(x.renorm(2, 1, 1.0), 3, 1, 1)),
        ("aten.cummax.default", lambda x: torch.cat([x, x.cummax(2)[0]], 1)),
        ("aten.renorm.default", lambda x: x.sum((2, 3), keepdim=True) * x.renorm(2, 1, 1.0)),
    ],
    ids=["added", "beside", "gated"],
)
def test_a_join_with_what_is_not_known_is_not_known_and_not_blamed(op: str, function: Function) -> None:
    _, graph = graph_of(function)
    assert graph.unknown_ops == {op: 1}
    assert graph.outputs[0] not in graph.reaches()


def test_an_extent_is_the_hull_over_channels_the_widest_position_and_the_mean_of_channels() -> None:
    x = Reach.source((4, 9, 5))
    left = x.select(2, Taps.slide(9, kernel=3, padding=1)).select(1, Taps.groups(4, 2)).repeat(1, 2)
    assert left.extent().window == (3, 1)
    assert left.extent().channels == 2
    wide = union([left, x.select(3, Taps.slide(5, kernel=5, padding=2))], left.shape)
    assert wide.extent().window == (3, 5)
    assert wide.extent().volume == 2 * 3 * 5
    both = concatenate([x, wide], 1)
    assert both.shape == (1, 8, 9, 5)
    assert both.extent().channels == 1.5
    assert both.extent().gated is False
    assert concatenate([both, x.with_gate()], 1).extent().gated is True
    assert union([x, x.as_bound()], x.shape).extent().bound is True


SEES_NOTHING = {
    "1x1, padded": (nn.Conv2d(4, 8, 1, padding=1), (4, 8, 8), 4 * 64 / 100),
    "1x1, padded unevenly": (nn.Conv2d(4, 8, 1, padding=(0, 2)), (4, 8, 8), 4 * 64 / 96),
    "3x3, padded by three": (nn.Conv2d(3, 2, 3, padding=3), (3, 6, 6), 3 * 64 / 100),
    "grouped, with strides": (nn.Conv2d(4, 4, 1, stride=2, padding=2, groups=2), (4, 8, 8), 2 * 16 / 36),
    "in one dimension": (nn.Conv1d(2, 2, 1, padding=3), (2, 6), 2 * 6 / 12),
    "zeros around": (nn.ZeroPad2d((1, 0, 0, 3)), (2, 5, 5), 1 * 25 / 48),
    "nothing padded": (nn.Conv2d(4, 8, 3, padding=1), (4, 8, 8), 4),
    "columns of windows": (nn.Unfold(3, padding=1), (3, 8, 8), (22 / 24) ** 2),
}


@pytest.mark.parametrize(("net", "shape", "channels"), SEES_NOTHING.values(), ids=SEES_NOTHING)
def test_what_lies_in_padding_sees_no_channel(net: nn.Module, shape: tuple[int, ...], channels: float) -> None:
    graph = cs.capture(net, torch.zeros(1, *shape))
    assert graph.reaches()[graph.outputs[0]].extent().channels == pytest.approx(channels)


class Product(nn.Module):
    """The product of two ways to look at an input."""

    def __init__(self, first: Function, second: Function) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) * self.second(x)


def padded(x: Tensor) -> Tensor:
    return F.pad(x, [1, 1, 1, 1])


def blurred(x: Tensor) -> Tensor:
    return F.conv2d(padded(x), torch.ones(4, 4, 3, 3, device=x.device), padding=1)


PRODUCTS = {
    "padding and what looks past it": (padded, blurred, True),
    "the other way round": (blurred, padded, True),
    "a shift brings zeros": (lambda x: F.pad(x[..., 1:], [0, 1]), lambda x: x, True),
    "both padded alike": (padded, lambda x: padded(x).sigmoid(), False),
    "no padding": (lambda x: x, lambda x: x.tanh(), False),
    "a gate": (lambda x: x, lambda x: x.mean((2, 3), keepdim=True), False),
    "padding and its gate": (padded, lambda x: x.mean((2, 3), keepdim=True), False),
}


@pytest.mark.parametrize(("first", "second", "bound"), PRODUCTS.values(), ids=PRODUCTS)
def test_a_product_with_zeros_of_a_padding_is_a_bound(first: Function, second: Function, bound: bool) -> None:
    graph = cs.capture(Product(first, second), torch.zeros(1, 4, 6, 6))
    assert graph.reaches()[graph.outputs[0]].extent().bound is bound


class Wave(nn.Module):
    """A net on a line of samples, which brings them into the form of a convolution's input itself."""

    def __init__(self, form: Function) -> None:
        super().__init__()
        self.form, self.convs = form, nn.Sequential(nn.Conv1d(1, 4, 9, stride=4, padding=4), nn.Conv1d(4, 2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(self.form(x))


WAVES = {
    "(1, T)": (lambda x: x, (1, 64)),
    "(T, 1)": (lambda x: x.transpose(1, 2), (64, 1)),
    "(T, 1), viewed": (lambda x: x.view(1, 1, 64), (64, 1)),
    "(T, 1), without its last dimension": (lambda x: x[..., 0].unsqueeze(1), (64, 1)),
    "(T)": (lambda x: x.unsqueeze(1), (64,)),
}


@pytest.mark.parametrize(("form", "shape"), WAVES.values(), ids=WAVES)
def test_a_waveform_is_a_line_of_samples(form: Function, shape: tuple[int, ...]) -> None:
    graph = cs.capture(Wave(form), torch.zeros(1, *shape))
    reaches = graph.reaches()
    seen = [reaches[node.name].extent() for node in graph.layers]
    assert [(each.window, each.window_free, each.channels) for each in seen] == [((9,), (9,), 1), ((17,), (17,), 1)]
    scores = cs.score(graph)
    (told,) = [found for found in advise(graph, scores).findings if found.kind == "input"]
    assert told.advice == "The net's window of 17 px fits into the input of 64 px, which is large enough."


def test_channels_of_length_one_are_channels_still() -> None:
    for net, shape in ((nn.Conv1d(8, 4, 1), (8, 1)), (nn.Sequential(nn.Linear(8, 4)), (8,))):
        graph = cs.capture(net, torch.zeros(1, *shape))
        assert graph.reaches()[graph.outputs[0]].extent().channels == 8


class Cut(nn.Module):
    """PixelUnshuffle written with views."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        parts = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4)
        return parts.reshape(n, 4 * c, h // 2, w // 2)


HULLS = {
    "alone": ([nn.PixelUnshuffle(2)], (2, 2), (2, 2)),
    "by three": ([nn.PixelUnshuffle(3)], (3, 3), (3, 3)),
    "and back": ([nn.PixelUnshuffle(2), nn.PixelShuffle(2)], (1, 1), (1, 1)),
    "behind a kernel": ([nn.Conv2d(3, 3, 3, padding=1), nn.PixelUnshuffle(2)], (4, 4), (4, 4)),
    "before a pointwise": ([nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 1)], (2, 2), (2, 2)),
    "before a depthwise": ([nn.PixelUnshuffle(2), nn.Conv2d(12, 12, 3, padding=1, groups=12)], (6, 6), (6, 6)),
    "before a kernel": ([nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 3, padding=1)], (6, 6), (6, 6)),
    "by views, before a kernel": ([Cut(), nn.Conv2d(12, 4, 3, padding=1)], (6, 6), (6, 6)),
    "before two kernels": (
        [nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)], (10, 10), (10, 10)
    ),
    "wider than the map": (
        [nn.PixelUnshuffle(2), *(nn.Conv2d(12, 12, 3, padding=1) for _ in range(3))], (12, 12), (14, 14)
    ),
    "twice": ([nn.PixelUnshuffle(2), nn.PixelUnshuffle(2)], (4, 4), (4, 4)),
    "columns of windows": ([nn.Unfold(3)], (3, 3), None),
}  # fmt: skip


@pytest.mark.parametrize(("layers", "window", "free"), HULLS.values(), ids=HULLS)
def test_pixels_that_became_channels_are_seen_together(
    layers: list[nn.Module], window: tuple[int, ...], free: tuple[int, ...] | None
) -> None:
    graph = cs.capture(nn.Sequential(*layers), torch.zeros(1, 3, 12, 12))
    extent = graph.reaches()[graph.outputs[0]].extent()
    assert extent.window == window
    assert free is None or extent.window_free == free


def test_a_window_is_clamped_by_the_map_and_the_free_one_is_not() -> None:
    x = Reach.source((1, 6, 6))
    for _ in range(4):
        x = x.select(2, Taps.slide(x.shape[2], kernel=3, padding=1))
    assert (x.extent().window, x.extent().window_free) == ((6, 1), (9, 1))
    assert x.at((0, 0, 0, 0))[1][0] == (0, 4)
    assert x.at((0, 0, 5, 0))[1][0] == (1, 5)


def test_places_are_no_channels() -> None:
    x = Reach.source((2, 6, 6)).select(2, Taps.slide(6, kernel=3, padding=1))
    tokens = x.reshape((1, 2, 36))
    assert tokens.axes == (None, None, PLACES)
    assert tokens.extent().window == (3, 1), "not the hull over all places"
    assert tokens.map == ()
    assert tokens.reshape((1, 2, 6, 6)).map == (6, 6)


def test_places_find_back_to_axes() -> None:
    x = Reach.source((2, 6, 6)).select(2, Taps.slide(6, kernel=3, padding=1))
    back = x.reshape((1, 2, 36)).reshape((1, 2, 6, 6)).reduce(1)
    assert back.axes == (None, None, 0, 1)
    assert all(back.at((0, 0, i, j))[1] == x.at((0, 0, i, j))[1] for i in range(6) for j in range(6))
    apart = x.reshape((1, 2, 36)).select(2, Taps.pick(np.arange(36)[::-1, None] // 7)).reshape((1, 2, 6, 6)).reduce(1)
    assert apart.axes == (None, None, PLACES, PLACES), "where a row is no row of the source"


def test_what_agrees_is_held_once() -> None:
    x = Reach.source((64, 8, 8))
    mixed = x.select(1, Taps.groups(64, 1)).repeat(1, 256)
    assert mixed.shape == (1, 256, 8, 8)
    assert (mixed.set_of.size, mixed.window_of.size, len(mixed.sets), mixed.rows) == (1, 1, 1, 1)
    assert concatenate([mixed, mixed], 1).rows == 1
