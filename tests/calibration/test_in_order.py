"""Fits in order: sums mended behind a shortcut, units left out, weights solved anew and judged on images held out."""

import pytest
import torch
from torch import Tensor, nn

import convsmith as cs
from convsmith.algebra.dense import refit
from convsmith.algebra.second_moments import Moments, Statistics
from convsmith.calibration.in_order import Calibration
from convsmith.calibration.joins import Behind
from convsmith.graph.replay import Replay
from convsmith.plan import Remove, Replace
from convsmith.planning.edits import planned
from convsmith.structure.units import detour


class Unit(nn.Module):
    """A residual unit; `late` computes its shortcut behind the branch, as torchvision does."""

    def __init__(self, late: bool = False) -> None:
        super().__init__()
        self.one, self.norm_one = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.two, self.norm_two = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.late = late

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_two(self.two(self.norm_one(self.one(x)).relu()))
        y += x * 1.0 if self.late else x
        return y.relu()


def net(late: bool = False) -> nn.Sequential:
    """A stem and four units, with norms that scale and shift."""
    torch.manual_seed(3)
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    made = nn.Sequential(stem, nn.Sequential(*(Unit(late) for _ in range(4))), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    made.train()
    for _ in range(3):
        made(images(64, 9))
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 0.6)
    return made.eval()


def images(count: int, seed: int) -> Tensor:
    return torch.rand(count, 3, 10, 10, generator=torch.Generator().manual_seed(seed))


def missed(new: nn.Module, old: nn.Module) -> float:
    """The squared relative error on images that nothing was fitted to."""
    x = images(64, 77)
    with torch.no_grad():
        made, wanted = new(x), old(x)
    return ((made - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()).item()


@pytest.mark.parametrize("late", [False, True])
def test_what_goes_into_a_sum_is_asked_for_what_the_shortcut_lacks(late: bool) -> None:
    original, changed = net(late), net(late)
    with torch.no_grad():
        changed[1][0].two.weight.mul_(0.8)
    x = images(4, 1)
    found = Calibration(original, changed, x).sample("1.1.two").statistics()
    scale = changed[1][1].norm_two.weight / (changed[1][1].norm_two.running_var + 1e-5).sqrt()
    with torch.no_grad():
        was, now = (model[1][0](model[0](x)) for model in (original, changed))
        unit = original[1][1]
        answer = unit.two(unit.norm_one(unit.one(was)).relu())
        wanted = answer + (was - now) / scale.view(1, -1, 1, 1)
    torch.testing.assert_close(found.mean_y, wanted.mean((0, 2, 3)).double(), rtol=1e-2, atol=1e-3)


def test_what_stands_behind_a_convolution() -> None:
    model = net()
    graph = cs.capture(model, images(1, 0))
    behind = {node.module: Behind.of(graph, node) for node in graph.nodes if node.kind == "conv"}
    assert behind["0.0"].relu and behind["0.0"].norm is None and behind["0.0"].shortcut is None
    assert behind["1.2.one"].relu and behind["1.2.one"].shortcut is None
    two = behind["1.2.two"]
    assert two.relu and two.norm is not None and two.shortcut is not None


def test_a_detour_is_the_net_without_the_unit() -> None:
    model, x = net(), images(5, 2)
    graph = cs.capture(model, x, batch=5)
    replay = Replay(model, graph, [detour(graph, ("1.1",)), detour(graph, ("1.3",))])
    alive = replay.start(x.clone())
    replay.run(alive, 0, len(graph.nodes))
    without = nn.Sequential(model[0], model[1][0], model[1][2], *model[2:])
    torch.testing.assert_close(alive[graph.outputs[0]], without(x).detach())


@pytest.mark.parametrize("late", [False, True])
def test_refits_mend_what_a_removed_unit_leaves(late: bool) -> None:
    model = net(late)
    plan = planned(cs.capture(model, images(1, 0)), [Remove(("1.1",))], [])
    raw, mended = cs.apply(model, plan), cs.rewrite(model, plan, data=images(256, 4)).model
    assert missed(mended, model) < 0.5 * missed(raw, model)
    assert len(mended[1]) == 3
    torch.testing.assert_close(mended[1][0].two.weight, model[1][0].two.weight)  # what stands before stays


def test_blocks_and_removed_units_go_together() -> None:
    model = net()
    graph = cs.capture(model, images(1, 0))
    plan = planned(graph, [Remove(("1.1",)), Replace("1.2.one", "dw-pw:r=2")], [])
    done = cs.rewrite(model, plan, data=images(128, 4))
    assert list(done.errors) == ["1.2.one"] and done.plan.new.macs == cs.capture(done.model, images(1, 0)).macs


def moments(count: int, seed: int) -> tuple[Tensor, Statistics]:
    """A weight, and few rows of inputs alike with answers that it does not quite give."""
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 4, 9, generator=torch.Generator().manual_seed(0))
    rows = torch.randn(count, 36, generator=draw)
    found = Moments(36, 3)
    found.add(rows, rows @ (1.1 * weight.flatten(1).T) + 2 * torch.randn(count, 3, generator=draw))
    return weight, found.statistics()


def test_few_rows_are_not_believed_beyond_what_others_confirm() -> None:
    weight, fitted = moments(40, 1)
    _, held_out = moments(40, 2)
    _, truth = moments(20000, 3)
    alone, judged = (refit(weight, fitted, other).factors[0] for other in (None, held_out))
    assert truth.error(judged) < truth.error(weight) < truth.error(alone)


def test_joined_moments_are_those_of_all_rows() -> None:
    rows = torch.randn(30, 5, generator=torch.Generator().manual_seed(0)) + 3
    parts = []
    for part in (rows, rows[:10], rows[10:]):
        found = Moments(5, 2)
        found.add(part, part[:, :2] ** 2)
        parts.append(found.statistics())
    both = parts[1].joined(parts[2])
    for name in ("gram", "cross", "energy", "mean_x", "mean_y", "size_x", "samples"):
        assert torch.allclose(torch.as_tensor(getattr(both, name)), torch.as_tensor(getattr(parts[0], name)))
