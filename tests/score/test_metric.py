"""Scores against the published tables, hand-worked layers, and independent counters of parameters and operations."""

import json
from functools import cache
from math import exp, inf, nan, prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ptflops import get_model_complexity_info
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import convsmith as cs
from convsmith.blocks import RollingPointwise
from convsmith.score.growth import value
from convsmith.score.records import Layer
from nets import graph_of

CONVENTIONS = ("published", "exact")


def meta_net(name: str, side: int, blocks: tuple[int, ...] | None = None) -> nn.Module:
    with torch.device("meta"):
        return cs.build(name, input=(3, side, side), blocks_per_stage=blocks).eval()


@cache
def zoo_graph(name: str, side: int = 32, blocks: tuple[int, ...] | None = None) -> cs.Graph:
    net = meta_net(name, side, blocks)
    return cs.capture(net, torch.zeros(1, 3, side, side, device="meta"), name=name)


def layer(scores: cs.Scores, name: str) -> Layer:
    (found,) = (each for each in scores.layers if each.name == name)
    return found


# --- the published convention ---

# Wang et al., CIKM 2021: net, side, blocks of the base and of the new net, published gain
PUBLISHED = [
    ("vgg11", 32, (1, 1, 2, 2, 2), (2, 1, 2, 2, 2), 1.73),
    ("vgg11", 32, (1, 1, 2, 2, 2), (1, 2, 2, 2, 2), 1.60),
    ("vgg11", 32, (1, 1, 2, 2, 2), (1, 1, 3, 2, 2), 0.29),
    ("vgg11", 32, (1, 1, 2, 2, 2), (1, 1, 2, 3, 2), 0.0),
    ("vgg11", 32, (1, 1, 2, 2, 2), (1, 1, 2, 2, 3), 0.0),
    ("vgg16", 32, (2, 2, 3, 3, 3), (5, 4, 2, 1, 1), 2.30),
    ("vgg19", 32, (2, 2, 4, 4, 4), (6, 4, 3, 2, 1), 3.13),
    ("mobilenet", 32, (1, 2, 2, 6, 2), (4, 4, 2, 2, 1), 3.94),
    ("resnet50", 32, (3, 4, 6, 3), (5, 5, 4, 2), 0.76),
    ("vgg16", 224, (2, 2, 3, 3, 3), (3, 3, 3, 2, 2), 0.39),
    ("vgg19", 224, (2, 2, 4, 4, 4), (4, 3, 3, 3, 3), 1.09),
    ("mobilenet", 224, (1, 2, 2, 6, 2), (3, 3, 3, 2, 2), 2.59),
    ("resnet50", 224, (3, 4, 6, 3), (4, 5, 4, 3), 0.47),
]


@pytest.mark.parametrize(("name", "side", "base", "new", "gain"), PUBLISHED)
def test_published_gains(name: str, side: int, base: tuple[int, ...], new: tuple[int, ...], gain: float) -> None:
    before, after = (cs.score(zoo_graph(name, side, blocks)) for blocks in (base, new))
    assert after.gain - before.gain == pytest.approx(gain, abs=0.01)


# The same with the side clamped to the map: not what the tables print, but what the formula as printed gives.
CLAMPED = [("vgg16", (5, 4, 2, 1, 1), 2.49), ("vgg19", (6, 4, 3, 2, 1), 3.18), ("mobilenet", (4, 4, 2, 2, 1), 4.18)]


@pytest.mark.parametrize(("name", "new", "gain"), CLAMPED)
def test_clamped_gains(name: str, new: tuple[int, ...], gain: float) -> None:
    before, after = (cs.score(zoo_graph(name, 32, blocks), clamp=True) for blocks in (None, new))
    assert after.gain - before.gain == pytest.approx(gain, abs=0.01)


# VGG16 at 32x32 by hand. Layer, stage, side, channels of its stage's first convolution, gain, parameters, MACs.
GOLDEN = [
    ("features.0", "stage1", 3, 64, 8 / 1 * exp(-3 * 1 / 32**2), 64 * (3 * 9 + 1), 64 * 3 * 9 * 32**2),
    ("features.3", "stage1", 5, 64, 16 / 9 * exp(-3 * 9 / 32**2), 64 * (64 * 9 + 1), 64 * 64 * 9 * 32**2),
    ("features.7", "stage2", 3, 128, 8 / 1 * exp(-3 * 1 / 16**2), 128 * (64 * 9 + 1), 128 * 64 * 9 * 16**2),
    ("features.20", "stage3", 7, 256, 24 / 25 * exp(-3 * 25 / 8**2), 256 * (256 * 9 + 1), 256 * 256 * 9 * 8**2),
    ("features.40", "stage5", 7, 512, 24 / 25 * exp(-3 * 25 / 2**2), 512 * (512 * 9 + 1), 512 * 512 * 9 * 2**2),
    ("classifier", "head", None, None, 0.0, 512 * 10 + 10, 512 * 10),
]


@pytest.mark.parametrize(("name", "stage", "side", "channels", "gain", "params", "macs"), GOLDEN)
def test_vgg16_by_hand(
    name: str, stage: str, side: int | None, channels: int | None, gain: float, params: int, macs: int
) -> None:
    found = layer(cs.score(zoo_graph("vgg16")), name)
    assert (found.stage, found.params, found.macs) == (stage, params, macs)
    assert (found.side, found.channels) == ((side, side) if side else None, channels)
    assert found.rf3d == (side * side * channels if side and channels else None)
    assert found.gain == pytest.approx(gain, rel=1e-12)


# Window without borders, from the net's input: two 3x3 convolutions see 5, a 2x2 pool adds 1, then each step counts 2.
REACHES = [("features.0", 3, 3), ("features.3", 5, 5), ("features.7", 10, 10), ("features.40", 32, 196)]


@pytest.mark.parametrize(("name", "window", "free"), REACHES)
def test_reach_from_the_input(name: str, window: int, free: int) -> None:
    reach = layer(cs.score(zoo_graph("vgg16")), name).reach
    assert reach is not None
    assert (reach.window, reach.window_free, reach.channels) == ((window, window), (free, free), 3.0)


def test_alpha_zero_leaves_the_growth_alone() -> None:
    ratios = {1: 8, 2: 16 / 9, 3: 24 / 25}
    wanted = sum(ratios[k] for blocks in (2, 2, 3, 3, 3) for k in range(1, blocks + 1))
    assert cs.score(zoo_graph("vgg16"), alpha=0).gain == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_more_alpha_is_less_gain(convention: str) -> None:
    gains = [cs.score(zoo_graph("vgg16"), convention=convention, alpha=alpha).gain for alpha in (0, 0.5, 3, 10)]
    assert gains == sorted(gains, reverse=True)
    assert len(set(gains)) == 4


SIDES = st.sampled_from([1, 3, 5])


@given(st.lists(st.tuples(SIDES, SIDES, st.integers(1, 2)), min_size=1, max_size=4), st.booleans())
@settings(max_examples=10, deadline=None)
def test_sides_add_up_dilation_included_and_1x1_adds_nothing(kernels: list[tuple[int, int, int]], clamp: bool) -> None:
    kernels = [(3, 3, 1), *kernels]
    convs = [nn.Conv2d(4, 4, (h, w), dilation=d, padding=(d * (h // 2), d * (w // 2))) for h, w, d in kernels]
    scores = cs.score(graph_of(nn.Sequential(*convs), 4, 9, 8), clamp=clamp)
    rows = columns = 1
    before: tuple[int, ...] | None = (1, 1)
    for (h, w, d), found in zip(kernels, scores.layers, strict=True):
        rows, columns = rows + d * (h - 1), columns + d * (w - 1)
        assert found.side == ((min(rows, 9), min(columns, 8)) if clamp else (rows, columns))
        assert (found.gain > 0) == (found.side != before)
        before = found.side


# --- the exact convention ---


@pytest.mark.parametrize("name", ["vgg16", "mobilenet", "resnet20", "resnet50"])
def test_exact_gains_are_never_negative(name: str) -> None:
    layers = cs.score(zoo_graph(name), convention="exact").layers
    assert all(each.gain >= 0 for each in layers)
    assert any(each.gain > 1 for each in layers)


@pytest.mark.parametrize("name", ["vgg11", "vgg19"])
@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_exact_gains_of_a_plain_net_follow_the_formula(name: str, alpha: float) -> None:
    scores = cs.score(zoo_graph(name), convention="exact", alpha=alpha)
    for stage in scores.stages:
        layers = [each for each in scores.layers if each.stage == stage.name]
        volume, before = prod(layers[0].in_shape), 1.0
        for k, each in enumerate(layers, 1):
            side, channels = min(1 + 2 * k, stage.width), layers[0].in_shape[0]
            assert (each.side, each.channels) == ((side, side), channels)
            after = float(side * side * channels)
            assert after >= before
            assert each.gain == pytest.approx((after - before) / before * exp(-alpha * before / volume))
            before = after


def test_exact_side_of_3x3_convolutions_is_1_plus_2k_clamped() -> None:
    net = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(6)))
    scores = cs.score(graph_of(net, 4, 9, 7), convention="exact")
    assert [each.side for each in scores.layers] == [(3, 3), (5, 5), (7, 7), (9, 7), (9, 7), (9, 7)]
    assert [each.gain for each in scores.layers[4:]] == [0, 0]


def test_exact_sees_groups_that_the_published_convention_does_not() -> None:
    net = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.Conv2d(8, 8, 3, padding=1))
    exact, published = (cs.score(graph_of(net, 8, 9, 9), convention=each) for each in ("exact", "published"))
    assert [each.channels for each in exact.layers] == [2.0, 8.0]
    assert [each.channels for each in published.layers] == [8.0, 8.0]


# --- totals and the JSON ---


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("name", ["vgg16", "mobilenet", "resnet20", "resnet50"])
def test_totals_are_the_sums(name: str, convention: str) -> None:
    scores = cs.score(zoo_graph(name), convention=convention)
    outside = [each for each in scores.layers if each.stage in ("stem", "head")]
    assert scores.macs == sum(each.macs for each in scores.layers)
    assert scores.macs == sum(stage.macs for stage in scores.stages) + sum(each.macs for each in outside)
    assert scores.gain == pytest.approx(sum(each.gain for each in scores.layers))
    for stage in scores.stages:
        own = [each for each in scores.layers if each.stage == stage.name]
        assert stage.macs == sum(each.macs for each in own)
        assert stage.gain == pytest.approx(sum(each.gain for each in own))
        assert stage.layers == sum(each.kind == "conv" and prod(each.kernel or ()) > 1 for each in own)


@pytest.mark.parametrize("name", ["vgg16", "mobilenet", "resnet20", "resnet50"])
def test_totals_against_torch_and_ptflops(name: str) -> None:
    net = meta_net(name, 32)
    scores = cs.score(zoo_graph(name))
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, 32, 32, device="meta"))
    operations, _ = get_model_complexity_info(
        net, (3, 32, 32), as_strings=False, print_per_layer_stat=False, backend="pytorch",
        backend_specific_config={"count_functional": False},
    )  # fmt: skip
    assert scores.params == sum(p.numel() for p in net.parameters())
    assert scores.macs == counter.get_total_flops() / 2
    assert cs.score(zoo_graph(name), count="ptflops").macs == operations > scores.macs


def test_the_json_contract() -> None:
    record = json.loads(cs.score(zoo_graph("vgg16")).to_json())
    first, stage = record["layers"][0], record["stages"][0]
    totals = {"params": 14728266, "macs": 313201664, "gain": pytest.approx(39.0626, abs=5e-5), "spatial_layers": 13}
    assert record["totals"] == totals | {"unknown_ops": {}, "value": pytest.approx(13.355, abs=5e-4)}
    assert {key: record[key] for key in record.keys() - {"totals", "stages", "layers"}} == {
        "model": "vgg16", "input": [3, 32, 32], "convention": "published", "alpha": 3.0, "clamp": False,
        "count": "plain", "notes": [],
    }  # fmt: skip
    assert stage.keys() == {"name", "width", "layers", "params", "macs", "gain", "value"}
    assert (stage["name"], stage["width"], stage["layers"]) == ("stage1", 32, 2)
    assert first.keys() == {
        "name", "kind", "stage", "kernel", "stride", "groups", "in", "out", "params", "macs", "side", "channels",
        "rf3d", "gain", "reach",
    }  # fmt: skip
    wanted = {
        "name": "features.0", "kind": "conv", "stage": "stage1", "kernel": [3, 3], "stride": [1, 1], "groups": 1,
        "in": [3, 32, 32], "out": [64, 32, 32], "side": [3, 3], "channels": 64.0,
    }  # fmt: skip
    assert {key: first[key] for key in wanted} == wanted
    assert {key: first["reach"][key] for key in ("window", "window_free", "channels")} == {
        "window": [3, 3], "window_free": [3, 3], "channels": 3.0,
    }  # fmt: skip


# --- other nets ---


class Unruled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).renorm(2, 1, 1.0))


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_behind_an_op_without_a_rule_nothing_is_claimed_but_cost(convention: str) -> None:
    scores = cs.score(graph_of(Unruled(), 4, 8, 8), convention=convention)
    first, second = scores.layers
    assert scores.to_dict()["totals"]["unknown_ops"] == {"aten.renorm.default": 1}
    assert (first.stage, first.reach is None, first.gain > 0) == ("stage1", False, True)
    assert (second.stage, second.reach, second.side, second.gain) == ("", None, None, 0.0)
    assert scores.macs == first.macs + second.macs == 2 * 4 * 4 * 9 * 64


def test_rolling_pointwise_is_a_1x1_layer() -> None:
    net = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), RollingPointwise(8, 8, groups=2, overlap=0.5, stride=2))
    found = layer(cs.score(graph_of(net, 8, 8, 8)), "1")
    assert (found.kind, found.kernel, found.stride, found.groups) == ("conv", (1, 1), (2, 2), 2)
    assert (found.params, found.macs, found.out_shape) == (8 * 4, 8 * 4 * 16, (8, 4, 4))


def test_signals_have_one_side() -> None:
    net = nn.Sequential(nn.Conv1d(2, 4, 5, padding=2), nn.Conv1d(4, 4, 3, dilation=2, padding=2))
    scores = cs.score(graph_of(net, 2, 20))
    assert [each.side for each in scores.layers] == [(5,), (9,)]
    assert scores.layers[1].gain == pytest.approx(4 / 5 * exp(-3 * 5 / 20))


REFUSED = [
    ({"convention": "paper"}, r"Unknown convention 'paper'; choose published or exact\."),
    ({"count": "flops"}, r"Unknown count 'flops'; choose plain or ptflops\."),
    ({"alpha": -0.1}, r"alpha is -0\.1, .* choose a number from 0\."),
    ({"alpha": nan}, r"alpha is nan"),
    ({"alpha": inf}, r"alpha is inf"),
]


@pytest.mark.parametrize(("options", "sentence"), REFUSED)
def test_refusals(options: dict, sentence: str) -> None:
    with pytest.raises(cs.ConvsmithError, match=sentence):
        cs.score(zoo_graph("vgg16"), **options)


def test_scores_show_themselves_in_a_notebook() -> None:
    graph = cs.capture(cs.build("vgg11", input=(3, 32, 32), classes=10), torch.zeros(1, 3, 32, 32), name="<b>vgg")
    scores = cs.score(graph)
    shown = scores._repr_html_()
    assert "&lt;b&gt;vgg" in shown
    assert shown.count("<tr>") == len(scores.layers) + len(scores.stages) + 2, "a head each"
    for told in (f"{scores.params:,}", f"{scores.macs:,}", f"{scores.gain:.3f}", "features.0", "64x32x32"):
        assert told in shown
    assert shown.count("<div") == shown.count("</div>")


def test_a_notebook_says_what_is_unknown() -> None:
    class Renormed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.renorm(2, 1, 1.0)

    net = torch.nn.Sequential(Renormed(), torch.nn.Conv2d(3, 4, 3))
    assert "unknown" in cs.score(cs.capture(net, torch.zeros(1, 3, 8, 8)))._repr_html_()


# --- the value ---


def test_the_value_of_vgg16_by_hand() -> None:
    widths, blocks = (32, 16, 8, 4, 2), (2, 2, 3, 3, 3)
    ratios = {1: 8, 2: 16 / 9, 3: 24 / 25}
    wanted = [
        sum((ratios[k] * exp(-3 * (2 * k - 1) ** 2 / width**2)) ** 0.25 for k in range(1, count + 1))
        for width, count in zip(widths, blocks, strict=True)
    ]
    scores = cs.score(zoo_graph("vgg16"))
    assert [stage.value for stage in scores.stages] == pytest.approx(wanted, rel=1e-12)
    assert scores.value == pytest.approx(sum(wanted), rel=1e-12)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("name", ["vgg16", "mobilenet", "resnet20", "shufflenetv2-1.0"])
def test_the_value_is_the_sum_of_the_roots_of_what_layers_gain(name: str, convention: str) -> None:
    scores = cs.score(zoo_graph(name), convention=convention)
    assert scores.value == pytest.approx(sum(layer.gain**0.25 for layer in scores.layers), rel=1e-9)
    assert scores.to_dict()["totals"]["value"] == scores.value
    assert [stage["value"] for stage in scores.to_dict()["stages"]] == [stage.value for stage in scores.stages]


@given(st.lists(st.floats(0, 30), min_size=2, max_size=8))
def test_the_root_keeps_the_order_of_layers_and_what_gains_nothing_adds_nothing(gains: list[float]) -> None:
    alone = [value([gain]) for gain in gains]
    pairs = list(zip(gains, alone, strict=True))
    assert all(a_value <= b_value for a, a_value in pairs for b, b_value in pairs if a <= b)
    assert value([*gains, 0.0]) == pytest.approx(sum(alone))
    assert value([-1.0]) == 0, "what sees less than its input is worth nothing"


def test_a_deeper_net_can_be_worth_more_than_one_of_more_gain() -> None:
    """What the published sum cannot tell: a large first kernel in every stage against more layers."""

    def net(kernels: list[int]) -> nn.Module:
        return nn.Sequential(*(nn.Conv2d(8, 8, k, padding=k // 2) for k in kernels))

    wide, deep = (cs.score(graph_of(net(kernels), 8, 32, 32)) for kernels in ([5], [3, 3, 3, 3]))
    assert wide.gain > deep.gain
    assert wide.value < deep.value
