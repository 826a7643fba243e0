"""Advice: what is idle, saturated or unmixed, and the input a window needs; against autograd and the planner."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import convsmith as cs
from convsmith.score.advice import Advice, Finding, advise
from nets import graph_of


@cache
def zoo(net: str, side: int, blocks: tuple[int, ...] | None = None) -> cs.Graph:
    with torch.device("meta"):
        model = cs.build(net, input=(3, side, side), classes=10, blocks_per_stage=blocks)
    return cs.capture(model, torch.zeros(1, 3, side, side, device="meta"), name=net)


def told(graph: cs.Graph, kind: str, **options: float) -> list[Finding]:
    return [found for found in advise(graph, cs.score(graph), **options).findings if found.kind == kind]


def conv(inputs: int, outputs: int, kernel: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=options.pop("padding", kernel // 2), **options)


# --- idle


@pytest.mark.parametrize(
    ("net", "side", "idle"),
    [
        ("vgg16", 32, ["features.20", "features.27", "features.30", "features.37", "features.40"]),
        ("mobilenet", 32, ["layer4.2.conv1", "layer4.3.conv1", "layer4.4.conv1", "layer4.5.conv1"]),
        ("vgg16", 224, []),
        ("vgg19", 224, []),
        ("resnet50", 224, []),
    ],
)
def test_idle_layers_of_known_nets(net: str, side: int, idle: list[str]) -> None:
    assert [found.layer for found in told(zoo(net, side), "idle")] == idle


@pytest.mark.parametrize("net", ["vgg16", "vgg19", "mobilenet", "resnet50"])
def test_what_organize_makes_has_no_idle_layer(net: str) -> None:
    base = zoo(net, 32)
    plan = cs.organize(base)
    assert advise(base, cs.score(base)).idle
    new = zoo(net, 32, plan.new.blocks)
    assert not advise(new, cs.score(new)).idle


def test_organize_takes_units_away_from_the_stages_that_have_idle_layers() -> None:
    graph = zoo("vgg16", 32)
    scores = cs.score(graph)
    places = sorted(advise(graph, scores).idle)
    plan = cs.organize(graph)
    fewer = [f"stage{i}" for i, (a, b) in enumerate(zip(plan.base.blocks, plan.new.blocks, strict=True), 1) if b < a]
    assert sorted({scores.layers[place].stage for place in places}) == fewer
    assert len(places) == sum(max(a - b, 0) for a, b in zip(plan.base.blocks, plan.new.blocks, strict=True))


def test_a_layer_that_sees_nothing_new_is_idle_however_little_it_costs() -> None:
    """The second depthwise convolution stands on a map that its input has seen as a whole."""
    net = nn.Sequential(conv(3, 64), conv(64, 64, groups=64), conv(64, 64, 1), conv(64, 64, groups=64), conv(64, 64, 1))
    graph = graph_of(net, 3, 2, 2)
    (found,) = told(graph, "idle", threshold=0.0)
    assert found.layer == "3"
    assert found.advice.startswith("3 sees nothing new for ")


def test_the_threshold_is_the_shares_ratio() -> None:
    graph = zoo("vgg16", 32)
    counts = [len(told(graph, "idle", threshold=threshold)) for threshold in (0.0, 0.05, 0.08, 0.5, 1e9)]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (3, 13), "nothing new to see; everything"


def test_the_convention_does_not_change_the_advice() -> None:
    graph = zoo("mobilenet", 32)
    assert advise(graph, cs.score(graph, convention="exact")) == advise(graph, cs.score(graph))


@pytest.mark.parametrize("net", ["vgg16", "vgg19", "mobilenet", "resnet50"])
def test_the_shares_of_a_nets_steps_are_its_stages(net: str) -> None:
    """With every counted convolution idle, the costs told add up to all but stem and head."""
    graph = zoo(net, 32)
    scores = cs.score(graph)
    found = told(graph, "idle", threshold=1e9)
    assert sum(one.share for one in found) * scores.macs == pytest.approx(sum(stage.macs for stage in scores.stages))


def support(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Which inputs any output of a net of positive weights depends on, per output element."""
    flat = torch.autograd.functional.jacobian(lambda t: net(t).flatten(), x)
    return flat.flatten(1) != 0


@settings(max_examples=8, deadline=None)
@given(
    side=st.integers(2, 6),
    depth=st.integers(2, 5),
    groups=st.sampled_from([1, 2]),
    kernel=st.sampled_from([3, 5]),
)
def test_blind_layers_are_those_that_autograd_finds_blind(side: int, depth: int, groups: int, kernel: int) -> None:
    """In a plain chain on one map, a layer is blind when its middle element sees no more than its input's does."""
    convs = [conv(4, 4, kernel, groups=groups, bias=False) for _ in range(depth)]
    for each in convs:
        nn.init.constant_(each.weight, 1.0)
    x = torch.rand(1, 4, side, side)
    middle = (side // 2) * side + side // 2
    seen = [support(nn.Sequential(*convs[: i + 1]), x)[middle].sum().item() for i in range(depth)]
    expected = [str(i) for i in range(1, depth) if seen[i] == seen[i - 1]]
    graph = graph_of(nn.Sequential(*convs), 4, side, side)
    assert [found.layer for found in told(graph, "idle", threshold=0.0)] == expected


# --- saturated


@pytest.mark.parametrize(
    ("depth", "side", "told_as"),
    [
        (4, 5, "stage1 sees all of its 5 px map after 2 of 4 convolutions"),
        (3, 5, "stage1 sees all of its 5 px map after 2 of 3 convolutions"),
        (2, 5, None),
        (4, 9, None),
    ],
)
def test_a_stage_is_saturated_when_its_map_is_seen_before_its_end(depth: int, side: int, told_as: str | None) -> None:
    found = told(graph_of(nn.Sequential(*(conv(4, 4) for _ in range(depth))), 4, side, side), "saturated")
    assert [one.advice.split(";")[0] for one in found] == ([told_as] if told_as else [])
    assert all(one.stage == "stage1" for one in found)


# --- unmixed


class Shuffle(nn.Module):
    """Two groups of channels, interleaved."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


MIXING = {
    "depthwise alone": ([conv(8, 8, groups=8), conv(8, 8, groups=8)], "1 of 8"),
    "groups that stay apart": ([conv(8, 8, groups=2), conv(8, 8, 1, groups=2)], "4 of 8"),
    "depthwise and pointwise": ([conv(8, 8, groups=8), conv(8, 8, 1)], None),
    "groups and a shuffle": (
        [conv(8, 8, 1, groups=2), Shuffle(), conv(8, 8, groups=8), conv(8, 8, 1, groups=2)],
        None,
    ),
    "standard": ([conv(8, 8), conv(8, 8)], None),
}


@pytest.mark.parametrize("name", MIXING)
def test_stages_that_never_mix_are_told(name: str) -> None:
    layers, reached = MIXING[name]
    found = told(graph_of(nn.Sequential(conv(3, 8), nn.MaxPool2d(2), *layers), 3, 16, 16), "unmixed")
    assert len(found) == (1 if reached else 0)
    assert all(f"reach {reached} channels" in one.advice for one in found)


# --- input


@pytest.mark.parametrize(
    ("net", "side", "part"),
    [
        ("vgg16", 224, "window of 212 px fits into the input of 224 px"),
        ("resnet50", 224, "needs an input of 427 px; at 224 px, 4 of 17 convolutions"),
        ("vgg16", 32, "needs an input of 196 px; at 32 px, 6 of 13 convolutions"),
    ],
)
def test_the_input_that_the_window_needs(net: str, side: int, part: str) -> None:
    (found,) = told(zoo(net, side), "input")
    assert part in found.advice


def test_at_the_size_told_the_window_fits_and_a_pixel_less_does_not() -> None:
    net = nn.Sequential(conv(3, 4, 5, padding=0), nn.MaxPool2d(2), conv(4, 4))
    for side, fits in ((10, True), (9, False)):
        (found,) = told(graph_of(net, 3, side, side), "input")
        assert ("which is large enough" in found.advice) == fits
        assert "10 px" in found.advice


def test_sides_that_differ_are_told_both() -> None:
    (found,) = told(graph_of(nn.Conv2d(3, 4, (3, 5)), 3, 20, 4 + 5), "input")
    assert "window of 3x5 px fits into the input of 20x9 px" in found.advice


def test_a_larger_input_is_advised_only_where_a_convolution_begins_with_all_of_it_in_sight() -> None:
    for side, faults in ((6, 0), (5, 1), (4, 1), (3, 2), (2, 2)):
        (found,) = told(graph_of(nn.Sequential(conv(3, 4), conv(4, 4), conv(4, 4)), 3, side, side), "input")
        assert "needs an input of 7 px" in found.advice
        assert ("enlarge the input" in found.advice) == bool(faults)
        assert f"{faults or 'none'} of 3 convolutions start" in found.advice


def test_what_is_told_of_an_idle_layer_are_its_own_numbers() -> None:
    graph = zoo("mobilenet", 32)
    scores = cs.score(graph)
    own = {layer.name: 100 * layer.macs / scores.macs for layer in scores.layers}
    for found in told(graph, "idle"):
        assert f" for {own[found.layer or '']:.1f} % of the MACs, " in found.advice
        assert f", {100 * found.share:.1f} % with the layers up to the next; " in found.advice
    assert all("up to the next" not in found.advice for found in told(zoo("vgg16", 32), "idle"))


# --- remedies


def test_who_ships_a_trained_net_is_told_what_keeps_its_weights() -> None:
    kept = "it needs training, while `decompose` keeps trained weights."
    assert all(one.advice.endswith(kept) for one in told(zoo("vgg16", 32), "idle"))
    assert not any(kept in one.advice for one in told(zoo("mobilenet", 32), "idle"))


def test_each_remedy_is_one_that_can_be_done() -> None:
    graph = zoo("vgg16", 32)
    assert all("`organize` can move it to stage1" in one.advice for one in told(graph, "idle"))
    single = graph_of(nn.Sequential(conv(3, 4), *(conv(4, 4) for _ in range(4))), 3, 5, 5)
    assert any("`organize --blocks` can take it out" in one.advice for one in told(single, "idle"))
    assert cs.organize(single, blocks=3).new.blocks == (3,)
    grown = graph_of(nn.Sequential(conv(3, 4), conv(4, 8), conv(8, 16), conv(16, 32)), 3, 3, 3)
    (one, *_) = told(grown, "idle")
    assert "`decompose` makes it cheaper" in one.advice
    assert one.layer in {edit.layer for edit in cs.decompose(grown).edits}
    audio = nn.Sequential(nn.Conv1d(1, 32, 80, 4), nn.Conv1d(32, 64, 3, padding=1), nn.Conv1d(64, 64, 3, padding=1))
    heard = graph_of(audio, 1, 16000)
    assert told(heard, "idle")
    edited = {edit.layer for edit in cs.decompose(heard).edits}
    assert all(one.layer in edited for one in told(heard, "idle") if "decompose" in one.advice)


# --- records


def test_the_record_adds_keys_only() -> None:
    graph = zoo("vgg16", 32)
    scores = cs.score(graph)
    plain, record = scores.to_dict(), advise(graph, scores).added_to(scores)
    idle = [layer["name"] for layer in record["layers"] if layer.pop("idle")]
    findings = record.pop("advice")
    assert record == plain
    assert idle == [one["layer"] for one in findings if one["kind"] == "idle"]
    assert all({"kind", "advice"} < one.keys() and ("layer" in one) != ("stage" in one) for one in findings)
    assert all(one["advice"].endswith(".") and "\n" not in one["advice"] for one in findings)


def test_a_module_called_twice_has_an_answer_for_each_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.conv(x))

    graph = graph_of(Twice(), 4, 3, 3)
    record = advise(graph, cs.score(graph), threshold=0.0).added_to(cs.score(graph))
    assert [layer["idle"] for layer in record["layers"]] == [False, True]


class Renormed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.renorm(2, 1, 1.0)


class Halves(nn.Module):
    """A convolution on each half of the channels, and one on both."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.both = conv(4, 4), conv(4, 4), conv(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, other = x.chunk(2, dim=1)
        return self.both(torch.cat([self.one(one), self.other(other)], dim=1))


@pytest.mark.parametrize("convention", ["published", "exact"])
def test_a_stage_that_begins_with_a_split_counts_from_what_is_split(convention: str) -> None:
    graph = graph_of(Halves(), 8, 9, 9)
    scores = cs.score(graph, convention=convention)
    assert not advise(graph, scores, threshold=0.0).idle
    if convention == "exact":
        assert [layer.channels for layer in scores.layers] == [4, 4, 8]


SILENT = {
    "no layers": (nn.ReLU(), (3, 8, 8)),
    "no convolution": (nn.Linear(10, 5), (10,)),
    "pointwise only": (nn.Conv2d(3, 8, 1), (3, 8, 8)),
    "behind an unknown op": (nn.Sequential(Renormed(), conv(3, 8), conv(8, 8)), (3, 8, 8)),
}


@pytest.mark.parametrize("name", SILENT)
def test_nothing_is_said_of_what_is_not_known(name: str) -> None:
    net, shape = SILENT[name]
    graph = graph_of(net, *shape)
    assert advise(graph, cs.score(graph)) == Advice()
