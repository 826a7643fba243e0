"""Convolutions in a row: which windows there are, and what blocks see over them, judged by gradients."""

from collections.abc import Callable
from itertools import pairwise
from math import prod

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convsmith as cs
from convsmith.blocks import parse_block
from convsmith.graph import Node
from convsmith.plan import Replace
from convsmith.planning.conv_chains import StandIn, Window, find_windows, shortest, split, stand_in
from convsmith.testing.oracles import gradient_support, transparent


def conv(channels: int, width: int, kernel: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, kernel, padding=kernel // 2, **options)


def row(*widths: int) -> nn.Sequential:
    """Convolutions with what stands between them in a net: names are 0, 3, 6, ..."""
    return nn.Sequential(*(each for c, n in pairwise(widths) for each in (conv(c, n), nn.BatchNorm2d(n), nn.ReLU())))


class Net(nn.Module):
    """Convolutions a, b, c, d (8 channels), a pointwise p and a gate g, in whatever order a test calls them."""

    def __init__(self, run: Callable[["Net", Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d, self.e = (conv(8, 8) for _ in range(5))
        self.p, self.g = conv(8, 8, 1), conv(8, 8, 1)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def gated(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    return net.b(y * net.g(y.mean((2, 3), keepdim=True)).sigmoid())


def two_units(net: Net, x: Tensor) -> Tensor:
    y = (x + net.b(net.a(x).relu())).relu()
    return (y + net.d(net.c(y).relu())).relu()


def parallel(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    return net.b(y) + net.c(y)


# the net, and layers of each window with the module that makes what it is judged by
WINDOWS = {
    "one after another": (lambda n, x: n.c(n.b(n.a(x).relu()).sigmoid()), ["a b: b", "b c: c", "a b c: c"]),
    "of four at most": (
        lambda n, x: n.e(n.d(n.c(n.b(n.a(x))))),
        ["a b: b", "b c: c", "c d: d", "d e: e", "a b c: c", "b c d: d", "c d e: e", "a b c d: d", "b c d e: e"],
    ),
    "through a residual unit": (lambda n, x: n.c(x + n.b(n.a(x).relu())), ["a b: b", "b c: c", "a b c: c"]),
    # b c ends where the sum of the second unit joins what b reaches past c
    "two units": (two_units, ["a b: b", "c d: d", "b c d: +", "a b c d: +"]),
    # the pointwise shortcut of the first unit mixes all channels for what follows
    "behind a shortcut": (lambda n, x: n.c(n.p(x) + n.b(n.a(x).relu())), ["a b: b", "b c: c"]),
    "read elsewhere too": (lambda n, x: n.b(y := n.a(x)) + n.p(y), []),
    "read by the answer": (lambda n, x: torch.cat([n.b(y := n.a(x)), y], 1), ["a b: +"]),
    "a pool between": (lambda n, x: n.b(nn.functional.max_pool2d(n.a(x), 2)), []),
    "a pointwise between": (lambda n, x: n.b(n.p(n.a(x))), []),
    "a gate between": (gated, []),
    "side by side": (parallel, []),
}


def windows_of(net: nn.Module, kept: str = "pg", size: int = 9) -> list[Window]:
    graph = cs.capture(net, torch.zeros(1, 8, size, size))
    return find_windows(graph, [node for node in graph.nodes if node.kind == "conv" and node.module not in kept])


@pytest.mark.parametrize(("run", "expected"), WINDOWS.values(), ids=WINDOWS)
def test_windows(run: Callable[[Net, Tensor], Tensor], expected: list[str]) -> None:
    found = windows_of(Net(run))
    told = [f"{' '.join(w.layers)}: {w.graph.by_name[w.exit].module or '+'}" for w in found]
    assert told == expected


@pytest.mark.parametrize(("count", "expected"), [(1, []), (2, [2]), (3, [3]), (4, [2, 2]), (5, [2, 3]), (7, [2, 2, 3])])
def test_a_row_is_split_into_pairs_and_a_three(count: int, expected: list[int]) -> None:
    assert [len(w.nodes) for w in split(windows_of(row(*[8] * (count + 1))))] == expected


def placed(nodes: tuple[Node, ...], block: str) -> dict[str, StandIn]:
    return {n.name: stand_in(parse_block(block), n.conv_spec() or pytest.fail(), (9, 9)) for n in nodes}


# Wang et al., CIKM 2021, at 64 channels: how many blocks in a row it takes; None for never
NEEDED = [
    ("dw-rpw:g=2,o=0.5", 2), ("dw-rpw:g=4,o=0.33", 2), ("dw-rpw:g=4,o=0.5", 2), ("dw-rpw:g=4,o=0.75", 2),
    ("dw-rpw:g=8,o=0.25", 3), ("dw-rpw:g=8,o=0.5", 3), ("dw-rpw:g=8,o=0.75", 4),
    ("dw-gpw:g=2", None), ("dw-gpw:g=8", None), ("dw-pw", 1),
]  # fmt: skip


@pytest.mark.parametrize(("block", "needed"), NEEDED)
def test_how_many_blocks_in_a_row_see_as_much(block: str, needed: int | None) -> None:
    net = row(*[64] * 5)
    graph = cs.capture(net, torch.zeros(1, 64, 9, 9))
    found = find_windows(graph, [node for node in graph.nodes if node.kind])
    blocks = placed(tuple(node for node in graph.nodes if node.kind), block)
    meet = {len(window.nodes) for window in found if window.meets_quality(blocks)}
    compact = {len(window.nodes) for window in found if window.meets_quality(blocks) and window.is_compact(blocks)}
    assert meet == (set() if needed is None else set(range(max(needed, 2), 5)))
    # in a longer row a kernel could be left out; pointwise ones could in any
    assert compact == ({needed} if needed and needed > 1 else set())


def test_the_shortest_window_is_told() -> None:
    net = row(*[64] * 6)
    graph = cs.capture(net, torch.zeros(1, 64, 9, 9))
    nodes = tuple(node for node in graph.nodes if node.kind)
    found = find_windows(graph, nodes)
    for block, length in (("dw-rpw:g=4,o=0.5", 2), ("dw-rpw:g=8,o=0.5", 3)):
        around = shortest(found, placed(nodes, block))
        assert around.keys() == {node.name for node in nodes}
        assert {len(window.nodes) for window in around.values()} == {length}
        assert all(node.module in around[node.name].layers for node in nodes)


# --- against gradients in the net with the blocks in place ---


def volume(net: nn.Module, size: int) -> float:
    """Mean channels times window at the middle of the map."""
    with torch.no_grad():
        outputs = net(torch.zeros(1, 16, size, size).double()).shape[1]
    middle = [(0, channel, size // 2, size // 2) for channel in range(outputs)]
    seen = gradient_support(net, (16, size, size), middle, draws=2)
    places = np.argwhere(np.any(seen, axis=(0, 1)))
    return float(np.mean([each.any((1, 2)).sum() for each in seen])) * float(prod(np.ptp(places, axis=0) + 1))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(16, 16), conv(16, 16), conv(16, 24)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.c((x + self.b(self.a(x).relu())).relu())
        return y


NETS: dict[str, Callable[[], nn.Module]] = {
    "two": lambda: row(16, 16, 16),
    "widths": lambda: row(16, 32, 24),
    "three": lambda: row(16, 16, 16, 16),
    "residual": Residual,
}
# by block and net: how many of the layers are in a window over which blocks see as much
MEETING = {
    "dw-rpw:g=2,o=0.5": {"two": 2, "widths": 2, "three": 3, "residual": 3},
    "dw-rpw:g=4,o=0.25": {"two": 0, "widths": 2, "three": 3, "residual": 3},
    "dw-rpw:g=8,o=0.5": dict.fromkeys(NETS, 0),
    "dw-gpw:g=4": dict.fromkeys(NETS, 0),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("block", MEETING)
def test_what_a_plan_says_of_windows_is_what_gradients_find(block: str, name: str) -> None:
    net = NETS[name]()
    plan = cs.decompose(cs.capture(net, torch.zeros(1, 16, 13, 13)), block=block)
    new = cs.apply(net, plan, method="none")
    windows = [edit.window for edit in plan.edits if isinstance(edit, Replace) and edit.window]
    assert len(windows) == MEETING[block][name]
    assert (volume(transparent(new), 13) == volume(transparent(net), 13)) == bool(windows)


# --- other calls in a call's place ---


@pytest.mark.parametrize("block", ["dw-rpw:g=2,o=0.5", "dw-gpw:g=4", "shuffle:g=2", "se"])
def test_calls_put_in_a_place_are_read_as_those_of_the_rebuilt_net(block: str) -> None:
    net = Residual()
    graph = cs.capture(net, torch.zeros(1, 16, 7, 7))
    layers = [node for node in graph.nodes if node.kind]
    inside = {n.name: stand_in(parse_block(block), n.conv_spec() or pytest.fail(), (7, 7)).whole for n in layers}
    rebuilt = cs.capture(cs.apply(net, cs.decompose(graph, block=block), method="none"), torch.zeros(1, 16, 7, 7))
    (end,), (end_again,) = graph.outputs, rebuilt.outputs
    found, expected = graph.reaches(None, [end], inside)[end], rebuilt.reaches()[end_again]
    assert found.extent() == expected.extent()
    for index in [(0, 0, 0, 0), (0, 7, 3, 3), (0, 23, 6, 2)]:
        (channels, spans), (wanted, wanted_spans) = found.at(index), expected.at(index)
        assert (channels.tolist(), spans) == (wanted.tolist(), wanted_spans)
    assert graph.reaches(None, [end], {})[end].extent() == graph.reaches()[end].extent()
