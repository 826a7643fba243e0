"""The organizer on trained nets: what counts least goes, what gains most comes without changing an answer."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn

import convsmith as cs
from convsmith.plan import Remove, Repeat
from convsmith.planning.pricing import Effect
from nets import graph_of


class Residual(nn.Module):
    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        nn.init.constant_(self.norm.weight, scale)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm(self.conv(x)))


def down(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


IMAGES = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))
SCALES = ((0.6, 0.02, 0.4), (0.5, 0.3, 0.01))  # how much the units of two stages do


def net_of(scales: tuple[tuple[float, ...], ...] = SCALES) -> nn.Sequential:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    stages = [nn.Sequential(*(Residual(8, s) for s in scales[0])), down(8, 12),
              nn.Sequential(*(Residual(12, s) for s in scales[1]))]  # fmt: skip
    return nn.Sequential(stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4)).eval()


def relative(net: nn.Module, new: nn.Module) -> float:
    """The relative error of the output, worked out apart from the product."""
    with torch.no_grad():
        before, after = (each(IMAGES).double() for each in (net, new))
    return float(((after - before).square().sum() / (before - before.mean(0)).square().sum()).sqrt())


def without(net: nn.Sequential, *paths: str) -> nn.Module:
    graph = graph_of(net, 3, 16, 16)
    plan = cs.organize(graph)
    return cs.apply(net, cs.Plan(**{**vars_of(plan), "edits": tuple(Remove((path,)) for path in paths)}))


def vars_of(plan: cs.Plan) -> dict:
    return {name: getattr(plan, name) for name in ("model", "input", "fingerprint", "base", "refusals")}


def test_the_effect_of_removals_is_that_of_the_net_without_them() -> None:
    net = net_of()
    effect = Effect(net, IMAGES)
    for paths in (("1.0",), ("3.2",), ("1.1", "3.0"), ("1.0", "1.1", "3.2"), ("1.2",)):
        error = effect.without([(path,) for path in paths]) ** 0.5
        assert error == pytest.approx(relative(net, without(net, *paths)), rel=1e-4)


def test_under_a_budget_what_counts_least_goes_and_what_that_costs_is_told() -> None:
    net = net_of()
    graph = graph_of(net, 3, 16, 16)
    plan = cs.organize(graph, model=net, data=IMAGES, max_macs=0.8)
    assert plan.new.macs <= 0.8 * graph.macs
    assert {edit.unit[0] for edit in plan.edits if isinstance(edit, Remove)} >= {"1.1"}
    gone = [edit for edit in plan.edits if isinstance(edit, Remove)]
    for edit in gone:
        assert edit.output_error == pytest.approx(relative(net, without(net, *edit.unit)), rel=1e-4)
        assert f"alone the output is off by {100 * edit.output_error:.3g} %" in edit.reason
    new = cs.apply(net, plan)
    assert f"without all {len(gone)} that go by {100 * relative(net, new):.3g} %" in gone[0].reason
    assert cs.Plan.from_json(plan.to_json()) == plan


def test_what_comes_changes_no_answer() -> None:
    net = net_of()
    plan = cs.organize(graph_of(net, 3, 16, 16), model=net, data=IMAGES, blocks=9)
    repeats = [edit for edit in plan.edits if isinstance(edit, Repeat)]
    assert all(edit.start == "identity" for edit in repeats)
    assert sum(edit.copies for edit in repeats) >= 2
    kept = [edit for edit in plan.edits if not isinstance(edit, Remove)]
    grown = cs.apply(net, cs.Plan(**{**vars_of(plan), "edits": tuple(kept)}))
    assert torch.allclose(grown(IMAGES), net(IMAGES), rtol=1e-5, atol=1e-5)


def worths(net: nn.Sequential) -> dict[tuple[int, int], float]:
    """By stage and number of units, the share of gain that is added, less that of errors that is made.

    Worked out by another way than the product's: on nets that were built.
    """
    alone = {path: relative(net, without(net, path)) ** 2 for path in (f"{s}.{i}" for s in (1, 3) for i in range(3))}
    base = cs.score(graph_of(net, 3, 16, 16)).gain
    found = {}
    for stage in (1, 3):
        order = sorted((path for path in alone if path[0] == str(stage)), key=alone.__getitem__)
        for gone in range(1, 4):
            error = relative(net, without(net, *order[:gone])) ** 2
            found[stage, 3 - gone] = -error / sum(alone.values())
        for more in range(4):
            found[stage, 3 + more] = cs.score(graph_of(grown(net, stage, more), 3, 16, 16)).gain / base - 1
    return found


def grown(net: nn.Sequential, stage: int, copies: int) -> nn.Module:
    units = [*net[stage], *(net[stage][-1] for _ in range(copies))]
    return nn.Sequential(*net[:stage], nn.Sequential(*units), *net[stage + 1 :])


COUNTS = [SCALES, ((0.3, 0.3, 0.3), (0.01, 0.02, 0.01)), ((0.01, 0.01, 0.01), (0.3, 0.3, 0.4))]


@pytest.mark.parametrize("scales", COUNTS)
def test_the_choice_is_the_best_of_all_by_enumeration(scales: tuple[tuple[float, ...], ...]) -> None:
    net = net_of(scales)
    graph, worth = graph_of(net, 3, 16, 16), worths(net)
    unit = {1: 8 * 8 * 9 * 256, 3: 12 * 12 * 9 * 64}

    def macs(counts: tuple[int, int]) -> int:
        return graph.macs + (counts[0] - 3) * unit[1] + (counts[1] - 3) * unit[3]

    for limit in (0.6, 1.0, 1.3):
        fits = [c for c in product(range(1, 7), range(7)) if sum(c) <= 6 and macs(c) <= limit * graph.macs]
        best = max(fits, key=lambda counts: worth[1, counts[0]] + worth[3, counts[1]])
        new = cs.organize(graph, model=net, data=IMAGES, max_macs=limit).new
        assert new.blocks == (best[0], best[1] + 1)  # the one that strides belongs to its stage
        assert new.macs == macs(best)


def test_time_and_parameters_limit_as_well() -> None:
    net = net_of()
    graph = graph_of(net, 3, 16, 16)
    latencies = cs.measure_latency(net, graph)
    plan = cs.organize(graph, model=net, data=IMAGES, max_params=0.7, max_latency=0.9, latencies=latencies)
    assert plan.new.params <= 0.7 * graph.params
    assert plan.latency_ms is not None
    assert plan.latency_ms[1] <= 0.9 * plan.latency_ms[0] * (1 + 1e-9)


def test_units_that_cannot_start_as_an_identity_are_not_repeated() -> None:
    torch.manual_seed(0)
    layers = [layer for _ in range(3) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.SiLU())]
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    graph = graph_of(net.eval(), 3, 16, 16)
    assert cs.organize(graph, blocks=5).edits
    with pytest.raises(cs.PlanError, match="5 units are not possible; choose at most 4"):
        cs.organize(graph, model=net, data=IMAGES, blocks=5)


def test_a_model_and_images_go_together() -> None:
    net = net_of()
    graph = graph_of(net, 3, 16, 16)
    for options, lacking in (({"data": IMAGES}, "images without model"), ({"model": net}, "a model without data")):
        with pytest.raises(cs.PlanError, match=rf"^organize: {lacking} given; both tell what units"):
            cs.organize(graph, **options)
    assert cs.organize(net, IMAGES[:1], data=IMAGES).edits == cs.organize(graph, model=net, data=IMAGES).edits
