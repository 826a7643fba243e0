"""Latencies: what is added up, what is measured once, and plans that keep a limit on them."""

from collections.abc import Sequence
from dataclasses import replace
from time import sleep

import pytest
import torch
from torch import Tensor, nn

import convsmith as cs
from convsmith.blocks import Block, parse_block
from convsmith.errors import ConvsmithError
from convsmith.kernels.spec import ConvSpec
from convsmith.latency.latencies import Latencies
from convsmith.plan import Replace, Request
from convsmith.planning.by_error import Trained, plan_by_error
from convsmith.planning.candidates import try_block


class Slow(nn.Module):
    """Takes a known time, whatever it is given."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, x: Tensor) -> Tensor:
        sleep(self.seconds)
        return x


class Net(nn.Module):
    """Calls one module twice, one not at all, and does something itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.twice, self.never = nn.Conv2d(3, 4, 3), Slow(0.002), nn.ReLU()
        self.inside = nn.Sequential(Slow(0.003), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        sleep(0.004)
        return self.twice(self.inside(self.twice(self.conv(x))))


@pytest.fixture(scope="module")
def net() -> Latencies:
    model = Net()
    return cs.measure_latency(model, cs.capture(model, torch.zeros(1, 3, 8, 8)), seconds=0.05)


@pytest.mark.parametrize(("path", "least"), [("twice", 0.004), ("inside", 0.003), ("inside.0", 0.003), ("", 0.011)])
def test_a_module_takes_what_all_of_its_calls_take(net: Latencies, path: str, least: float) -> None:
    assert net.of([path]) >= least
    assert net.of(["twice", "inside"]) == net.of(["twice"]) + net.of(["inside"]) < net.total


def test_who_is_never_called_is_unknown(net: Latencies) -> None:
    with pytest.raises(ConvsmithError, match=r"never is never called as a module, so its latency is unknown"):
        net.of(["conv", "never"])


def test_the_model_stays_as_it_was() -> None:
    model = Net().train()
    cs.measure_latency(model, cs.capture(model, torch.zeros(1, 3, 8, 8)), seconds=0.01)
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_blocks_are_measured_once_for_all_convolutions_alike() -> None:
    found = Latencies({"": 0.1, "a": 0.010, "b": 0.020})
    spec, block = ConvSpec(64, 64), parse_block("dw-pw")
    (first,) = found.blocks("a", spec, (32, 32), [block])
    assert found.blocks("b", spec, (32, 32), [block]) == pytest.approx([2 * first])
    assert list(found.ratios) == [(spec, (32, 32), "dw-pw")]
    found.blocks("a", spec, (16, 16), [block, parse_block("cp:R=8")])
    assert len(found.ratios) == 3


# --- plans ---


class ByMacs(Latencies):
    """A machine that takes a nanosecond for every multiply-accumulate, and no time for anything else."""

    def blocks(self, layer: str, conv: ConvSpec, size: tuple[int, int], blocks: Sequence[Block]) -> list[float]:
        return [1e-9 * try_block(block, conv, size).macs for block in blocks]


def by_macs(graph: cs.Graph) -> ByMacs:
    seconds = {node.module: 1e-9 * node.macs for node in graph.nodes if node.module}
    return ByMacs(seconds | {"": 1e-9 * graph.macs})


@pytest.fixture(scope="module")
def vgg() -> cs.Graph:
    return cs.capture(cs.build("vgg11", input=(3, 32, 32), classes=10), torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("limit", [0.8, 1.0, 1.2])
def test_organizing_by_latency_is_by_macs_where_these_are_all_that_takes_time(vgg: cs.Graph, limit: float) -> None:
    found = cs.organize(vgg, max_latency=limit, latencies=by_macs(vgg))
    edits = tuple(replace(edit, latency_ms=None) for edit in found.edits)
    assert replace(found, edits=edits, base_ms=None) == cs.organize(vgg, max_macs=limit)
    assert found.latency_ms == pytest.approx((vgg.macs / 1e6, found.new.macs / 1e6))


@pytest.mark.parametrize(("block", "limit"), [("auto", 0.5), ("auto", 0.1), ("dw-pw", 0.7), ("cp:R=8", 0.4)])
def test_so_is_decomposing(vgg: cs.Graph, block: str, limit: float) -> None:
    found = cs.decompose(vgg, block=block, max_latency=limit, latencies=by_macs(vgg))
    edits = tuple(replace(edit, latency_ms=None) for edit in found.edits)
    assert edits == cs.decompose(vgg, block=block, max_macs=limit).edits
    assert found.latency_ms == pytest.approx((vgg.macs / 1e6, found.new.macs / 1e6))


def test_so_is_choosing_ranks_by_the_error() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten()
    ).eval()
    images = torch.rand(16, 3, 10, 10)
    graph = cs.capture(net, images[:1])
    plan = plan_by_error(Trained(net, graph, images, "als"), Request("auto", 0.7))
    timed = plan_by_error(
        Trained(net, graph, images, "als", latencies=by_macs(graph)), Request("auto", max_latency=0.7)
    )
    assert tuple(replace(edit, latency_ms=None) for edit in timed.edits) == plan.edits
    assert timed.latency_ms == pytest.approx((graph.macs / 1e6, plan.new.macs / 1e6))


def test_a_cheaper_rank_that_takes_longer_is_passed_over(vgg: cs.Graph) -> None:
    """The one-term block is the slowest here, so that the two-term one is as far as a layer goes."""

    class Odd(ByMacs):
        def blocks(self, layer: str, conv: ConvSpec, size: tuple[int, int], blocks: Sequence[Block]) -> list[float]:
            told = zip(blocks, super().blocks(layer, conv, size, blocks), strict=True)
            return [3 * seconds if str(block) == "dw-pw" else seconds for block, seconds in told]

    odd = Odd(by_macs(vgg).modules)
    least = cs.decompose(vgg, block="dw-pw", max_latency=0.27, latencies=odd)
    chosen = {edit.block for edit in least.edits if isinstance(edit, Replace)}
    assert "dw-pw:r=2" in chosen
    assert "dw-pw" not in chosen
    with pytest.raises(ConvsmithError, match=r"of its latency, more than the 0\.100 allowed"):
        cs.decompose(vgg, block="dw-pw", max_latency=0.1, latencies=odd)


@pytest.mark.parametrize("verb", [cs.organize, cs.decompose])
def test_a_limit_on_what_nobody_measured_is_refused(vgg: cs.Graph, verb: object) -> None:
    with pytest.raises(ConvsmithError, match=r"needs latencies; give .*cs.measure_latency\(model, graph\)"):
        verb(vgg, max_latency=0.9)  # type: ignore[operator]


def test_two_limits_at_once_are_refused(vgg: cs.Graph) -> None:
    with pytest.raises(ConvsmithError, match="limit either MACs or latency"):
        cs.decompose(vgg, max_macs=0.5, max_latency=0.5, latencies=by_macs(vgg))
