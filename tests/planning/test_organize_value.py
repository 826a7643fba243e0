"""The organizer by value: the published structures stay, and where gain and value differ the answer is the optimum."""

from collections.abc import Callable
from functools import cache
from itertools import product
from math import exp, inf

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import convsmith as cs
from convsmith.planning.divisions import Choice, Option, Rank, allocate
from nets import graph_of, meta_net, zoo_graph

# --- the published structures ---

# Wang et al., CIKM 2021: net, side, classes, blocks asked for, structure. Every unit of these nets that moves has one
# counted convolution, all of one size, so that the sum of any rising function of the gains has the same optimum.
PUBLISHED = [
    ("vgg16", 32, 10, None, (5, 4, 2, 1, 1)),
    ("vgg19", 32, 10, None, (6, 4, 3, 2, 1)),
    ("resnet50", 32, 10, None, (5, 5, 4, 2)),
    ("resnet50-wa", 32, 100, 17, (5, 5, 4, 3)),
    ("vgg16", 224, 1000, None, (3, 3, 3, 2, 2)),
    ("vgg19", 224, 1000, None, (4, 3, 3, 3, 3)),
    ("resnet50", 224, 1000, None, (4, 5, 4, 3)),
]


@pytest.mark.parametrize(("name", "side", "classes", "asked", "blocks"), PUBLISHED)
def test_published_structures_have_the_most_value(
    name: str, side: int, classes: int, asked: int | None, blocks: tuple[int, ...]
) -> None:
    plan = cs.organize(zoo_graph(name, side, classes), blocks=asked, by="value")
    assert plan.new.blocks == blocks
    own = cs.capture(meta_net(name, side, blocks, classes), torch.zeros(1, 3, side, side, device="meta"))
    scores = cs.score(own)
    assert plan.new.value == pytest.approx(scores.value, rel=1e-12)
    assert plan.new.gain == pytest.approx(scores.gain, rel=1e-12)


@given(st.lists(st.integers(4, 56), min_size=2, max_size=4), st.integers(0, 6))
@settings(max_examples=40, deadline=None)
def test_units_of_one_kernel_go_to_the_same_stages_by_gain_and_by_value(widths: list[int], extra: int) -> None:
    options = [[option_of([3] * n, w) for n in range(1, extra + 2)] for w in widths]
    by_gain, by_value = (best_of(options, len(widths) + extra, rank) for rank in (Choice.rank, by_value_of))
    assert by_gain.value == pytest.approx(by_value.value, abs=0.02)  # gains under 1e-9 tie in one and not in the other
    assert by_gain.gain == pytest.approx(by_value.gain, abs=1e-8)


def best_of(options: list[list[Option]], total: int, rank: Rank) -> Choice:
    return max(allocate(options, total, lambda _: True, lambda choice: (-rank(choice)[0],), rank), key=rank)


def by_value_of(choice: Choice) -> tuple[float, tuple[int, ...]]:
    return choice.rank("value")


# --- where they differ: by enumeration ---


def gains(kernels: list[int], width: int) -> list[float]:
    """What the convolutions of a stage gain, worked out apart from the product."""
    side, found = 1, []
    for kernel in kernels:
        wider = side + kernel - 1
        found.append((wider**2 / side**2 - 1) * exp(-3 * side**2 / width**2))
        side = wider
    return found


def option_of(kernels: list[int], width: int, macs: int = 0) -> Option:
    own = gains(kernels, width)
    return Option(len(kernels), sum(own), 0, macs, value=sum(gain**0.25 for gain in own))


def spreads(total: int, stages: int) -> list[tuple[int, ...]]:
    return [blocks for blocks in product(range(1, total + 1), repeat=stages) if sum(blocks) == total]


def best(choices: list[tuple[int, ...]], worth: Callable[[tuple[int, ...]], float]) -> tuple[int, ...]:
    return max(choices, key=lambda blocks: (round(worth(blocks), 9), blocks[::-1]))


WIDTHS = {"mobilenet": (32, 32, 16, 8, 4), "vgg16": (32, 16, 8, 4, 2)}


@cache
def macs_of(name: str, blocks: tuple[int, ...]) -> int:
    with FlopCounterMode(display=False) as counter:
        meta_net(name, 32, blocks)(torch.zeros(1, 3, 32, 32, device="meta"))
    return counter.get_total_flops() // 2


def macs_by_stage(name: str, blocks: tuple[int, ...]) -> int:
    """The same by what one more block of each stage costs: hundreds of nets need not be built."""
    ones = (1,) * len(blocks)
    least = macs_of(name, ones)
    more = [macs_of(name, (*ones[:i], 2, *ones[i + 1 :])) - least for i in range(len(blocks))]
    return least + sum((n - 1) * each for n, each in zip(blocks, more, strict=True))


@pytest.mark.parametrize("limit", [1.0, 1.05, inf])
def test_the_optimum_of_mobilenet_within_a_budget_by_enumeration(limit: float) -> None:
    graph = zoo_graph("mobilenet")
    most = limit * graph.macs
    fits = [blocks for blocks in spreads(13, 5) if most == inf or macs_by_stage("mobilenet", blocks) <= most]
    for by, power in (("gain", 1.0), ("value", 0.25)):

        def worth(blocks: tuple[int, ...], power: float = power) -> float:
            pairs = zip(WIDTHS["mobilenet"], blocks, strict=True)
            return sum(gain**power for width, n in pairs for gain in gains([3] * n, width))

        new = cs.organize(graph, max_macs=None if limit == inf else limit, by=by).new
        assert new.blocks == best(fits, worth)
        assert getattr(new, by) == pytest.approx(worth(new.blocks))


def test_a_budget_can_part_gain_and_value() -> None:
    """Within one, a stage's first kernel (8 for much) is weighed against several later ones (under 2 each)."""
    graph = zoo_graph("mobilenet")
    one, other = (cs.organize(graph, max_macs=1.0, by=by).new for by in ("gain", "value"))
    assert one.blocks != other.blocks
    assert one.gain > other.gain
    assert one.value is not None
    assert other.value is not None
    assert one.value < other.value


def conv(channels: int, width: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(channels, width, kernel, padding=kernel // 2)


def test_kernels_of_two_sizes_can_part_gain_and_value() -> None:
    """A copy of the 3x3 stands before the 5x5 that ends the stage: the first kernel, which gains most, gets smaller."""
    net = nn.Sequential(
        conv(4, 4), conv(4, 4), conv(4, 8, 5), nn.MaxPool2d(2), conv(8, 8), conv(8, 8), nn.MaxPool2d(2), conv(8, 8)
    )
    graph = graph_of(net, 4, 24, 24)
    found = {}
    for by, power in (("gain", 1.0), ("value", 0.25)):

        def worth(blocks: tuple[int, ...], power: float = power) -> float:
            stages = ([3] * (blocks[0] - 1) + [5], 24), ([3] * blocks[1], 12), ([3] * blocks[2], 6)
            return sum(gain**power for kernels, width in stages for gain in gains(kernels, width))

        for total in (4, 5, 6, 7, 8):
            plan = cs.organize(graph, blocks=total, by=by)
            assert plan.new.blocks == best(spreads(total, 3), worth)
            found.setdefault(total, set()).add(plan.new.blocks)
    assert any(len(spreads_of) == 2 for spreads_of in found.values())


def test_the_front_by_value_equals_enumeration() -> None:
    graph = zoo_graph("vgg16")
    total = 7

    def measures(blocks: tuple[int, ...]) -> tuple[float, float, int]:
        own = [gain for width, n in zip(WIDTHS["vgg16"], blocks, strict=True) for gain in gains([3] * n, width)]
        net = meta_net("vgg16", 32, blocks)
        return -round(sum(g**0.25 for g in own), 9), sum(p.numel() for p in net.parameters()), macs_of("vgg16", blocks)

    told = {blocks: measures(blocks) for blocks in spreads(total, 5)}
    beaten = {
        blocks
        for blocks, mine in told.items()
        if any(other != mine and all(a <= b for a, b in zip(other, mine, strict=True)) for other in told.values())
    }
    found = cs.pareto(graph, blocks=total, by="value")
    assert {choice.blocks for choice in found} == told.keys() - beaten
    assert [-round(choice.value, 9) for choice in found] == [told[choice.blocks][0] for choice in found]
    assert 1 < len(found) < len(told)


# --- what plans say, and what is refused ---


def test_a_plan_by_value_says_so_and_is_executed() -> None:
    net = nn.Sequential(conv(4, 4), conv(4, 4), nn.MaxPool2d(2), conv(4, 4), conv(4, 4), conv(4, 4))
    plan = cs.organize(graph_of(net, 4, 16, 16), by="value")
    assert plan.edits
    assert all("change its value by" in edit.reason for edit in plan.edits)
    assert cs.Plan.from_json(plan.to_json()) == plan
    again = cs.score(graph_of(cs.apply(net, plan), 4, 16, 16))
    assert (again.value, again.gain) == pytest.approx((plan.new.value, plan.new.gain), rel=1e-12)


@pytest.mark.parametrize("by", ["Value", "macs", "", "blocks"])
def test_an_unknown_objective_is_refused(by: str) -> None:
    for call in (cs.organize, cs.pareto):
        with pytest.raises(cs.ConvsmithError, match=r"unknown objective '.*'; choose gain or value\.$"):
            call(zoo_graph("vgg16"), by=by)
