"""Plans judged by what they do: against all plans of a small net, and never worse than those of fewer levers."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import convsmith as cs
from convsmith.errors import ConvsmithError
from convsmith.plan import Request
from convsmith.planning.allocation import Priced
from convsmith.planning.by_error import Trained, price
from convsmith.planning.joint import State
from convsmith.planning.prices import Prices
from convsmith.planning.repricing import Judge, Judged


class Unit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.two = nn.Conv2d(16, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = (x + self.two(self.norm(self.one(x)).relu())).relu()
        return y


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Sequential(Unit(), Unit(), Unit()))
    made.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)])
    for _ in range(3):
        made(images(32, 9))
    return made.eval()


def small(model: nn.Module, asked: Request) -> Priced:
    """What can be done to it, two ways a layer and group: few enough to try all."""
    found = price(Trained(model, cs.capture(model, images(1)), images(96)), asked)
    levers = found.levers
    layers = [(one, choices[:2]) for one, choices in levers.layers if one.layer.endswith("one")]
    return replace(found, levers=replace(levers, layers=layers, groups=[group[:1] for group in levers.groups]))


def judged(model: nn.Module, most: int = 24) -> Judge:
    return Judge(model, images(96), None, 0, most, Prices())


def within(found: Priced) -> list[State]:
    states = product(*(range(len(item.ways)) for item in found.joint.items))
    most = found.costs.limit - found.rest
    return [s for s in states if found.joint.allowed(s) and found.joint.total(s) <= most]


def test_of_all_plans_of_a_small_net_one_of_the_best_is_found() -> None:
    model, asked = net(0), Request("cp:r=2", 0.6, width=True, depth=True)
    found, judge = small(model, asked), judged(model)
    plan = Judged(found, judge, asked).within(found.costs)
    assert plan.new.macs <= 0.6 * plan.base.macs
    every = judged(model, 10**6)
    errors = sorted(every.error(found.plan_of(state, asked, found.costs)) for state in within(found))
    assert len(errors) > 20
    assert errors.index(every.error(plan)) <= 2


def test_plans_of_fewer_levers_are_no_better_and_no_more_are_judged_than_allowed() -> None:
    model, asked = net(0), Request("auto", 0.6, width=True, depth=True)
    found, told = price(Trained(model, cs.capture(model, images(1)), images(96)), asked), list[int]()
    judge = Judge(model, images(96), None, 0, 6, Prices(), lambda what, done, total: told.append(done))
    plan = Judged(found, judge, asked).within(found.costs)
    assert len(told) <= 6 + 4, "a round that has begun judges what it chose"
    for fewer in ({"groups": (), "units": ()}, {"groups": ()}, {"units": ()}):
        other = replace(found, levers=replace(found.levers, **fewer))
        assert judge.error(plan) <= judge.error(other.within(asked, found.costs))


def test_what_was_judged_is_kept_in_the_file_of_prices(tmp_path: Path) -> None:
    model, prices, told = net(1), tmp_path / "prices", list[str]()

    def plan() -> cs.Plan:
        return cs.decompose(
            model, images(1), data=images(64), block="cp:r=2", max_macs=0.6, depth=True, judged=3, prices=prices,
            progress=lambda what, done, total: told.append(what),
        )  # fmt: skip

    first = plan()
    assert "judging plans" in told
    told.clear()
    assert plan() == first
    assert "judging plans" not in told


def test_nothing_is_judged_without_images() -> None:
    with pytest.raises(ConvsmithError, match="give data, or leave judged out"):
        cs.decompose(net(0), images(1), max_macs=0.5, judged=5)
