"""Plans that also narrow channels and take units out: held to refits, to limits, and to torch's own counts."""

import pytest
import torch
from torch import Tensor, nn

import convsmith as cs
from convsmith.algebra.elimination import Reader, eliminate
from convsmith.algebra.fitting import Target
from convsmith.algebra.second_moments import Moments
from convsmith.plan import Narrow, Remove
from convsmith.planning.edits import planned


class Unit(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(8, width, 3, padding=1), nn.BatchNorm2d(width)
        self.two = nn.Conv2d(width, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = (x + self.two(self.norm(self.one(x)).relu())).relu()
        return y


def net() -> nn.Sequential:
    torch.manual_seed(5)
    units = nn.Sequential(*(Unit() for _ in range(4)))
    made = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), units, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    made.append(nn.Linear(8, 5))
    made.train()
    for _ in range(3):
        made(images(32, 9))
    return made.eval()


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def missed(new: nn.Module, old: nn.Module) -> float:
    x = images(64, 77)
    with torch.no_grad():
        made, wanted = new(x), old(x)
    return ((made - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()).item()


@pytest.mark.parametrize("taps", [1, 4])
def test_elimination_is_least_squares_on_what_is_left(taps: int) -> None:
    draw = torch.Generator().manual_seed(taps)
    channels, outputs = 6, 3
    weight = torch.randn(outputs, channels, taps, generator=draw)
    mix = torch.randn(channels * taps, channels * taps, generator=draw)
    rows = torch.randn(4000, channels * taps, generator=draw) @ mix
    found = Moments(channels * taps, outputs)
    found.add(rows, rows @ weight.flatten(1).T)
    target = Target.of(weight, found.statistics())
    gram, cross = target.moments.gram, target.moments.cross
    inputs = torch.arange(channels * taps).view(channels, taps)

    def explained(kept: list[int]) -> float:
        free = inputs[kept].flatten()
        own = cross[free]
        return (own * torch.linalg.solve(gram[free][:, free], own)).sum().item() / target.energy.item()

    order, errors = eliminate([Reader(target, inputs)])
    whole, left = explained(list(range(channels))), list(range(channels))
    for channel, error in zip(order, errors, strict=True):
        ways = {other: whole - explained([c for c in left if c != other]) for other in left}
        assert ways[channel] == pytest.approx(error, rel=1e-6, abs=1e-9)
        assert ways[channel] <= min(ways.values()) + 1e-9, "and no other would have been missed less"
        left.remove(channel)


@pytest.mark.parametrize("limit", [0.8, 0.5, 0.3])
@pytest.mark.parametrize("levers", [{"width": True, "depth": False}, {"width": False, "depth": True}, {}])
def test_plans_keep_their_limits_and_apply_as_they_say(limit: float, levers: dict[str, bool]) -> None:
    model, x = net(), images(64)
    graph = cs.capture(model, x[:1])
    given = {"width": True, "depth": True} | levers
    plan = cs.decompose(graph, model=model, data=x, max_macs=limit, **given)
    assert plan.new.macs <= limit * graph.macs
    assert given["width"] or not [edit for edit in plan.edits if isinstance(edit, Narrow)]
    assert given["depth"] or not [edit for edit in plan.edits if isinstance(edit, Remove)]
    done = cs.rewrite(model, plan, data=x)
    after = cs.capture(done.model, x[:1])
    assert (after.macs, after.params) == (plan.new.macs, plan.new.params) == (done.plan.new.macs, done.plan.new.params)
    assert cs.Plan.from_json(plan.to_json()) == plan


def test_a_net_whose_ranks_do_not_suffice_is_narrowed_and_shortened() -> None:
    model, x = net(), images(64)
    graph = cs.capture(model, x[:1])
    with pytest.raises(cs.BudgetError):
        cs.decompose(graph, model=model, data=x, max_macs=0.08, width=False, depth=False)
    plan = cs.decompose(graph, model=model, data=x, max_macs=0.08)
    assert {edit.kind for edit in plan.edits} & {"narrow", "remove"}


def test_channels_chosen_and_refitted_on_images_lose_less_than_by_norms() -> None:
    model, x = net(), images(256)
    edits = [Narrow((f"2.{unit}.one",), 8) for unit in range(4)]
    plan = planned(cs.capture(model, x[:1]), edits, [])
    by_norms, fitted = cs.rewrite(model, plan), cs.rewrite(model, plan, data=x)
    assert missed(fitted.model, model) < 0.5 * missed(by_norms.model, model)
    assert all(isinstance(e, Narrow) and e.error is not None and len(e.kept or ()) == 8 for e in fitted.plan.edits)
    assert fitted.plan.new.macs == by_norms.plan.new.macs
