"""The joint refit: nearer to the original on images that nobody saw, never farther on those held out, and tidy."""

import pytest
import torch
from torch import Tensor, nn

import convsmith as cs
from convsmith.calibration.calibrate import take_images
from convsmith.calibration.pictures import Bytes, Several
from convsmith.calibration.variations import varied
from convsmith.errors import ConvsmithError
from convsmith.graph.signature import Signature
from convsmith.plan import Remove
from convsmith.planning.edits import planned
from convsmith.rewriting import joint_refit
from convsmith.rewriting.joint_refit import OUTPUT, pairs_of, parted, refit_jointly


class Unit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.two = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = (x + self.two(self.norm(self.one(x)).relu())).relu()
        return y


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def net() -> nn.Sequential:
    torch.manual_seed(3)
    made = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), Unit(), Unit(), nn.MaxPool2d(2), Unit(), Unit())
    made.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)])
    for _ in range(3):
        made(images(32, 9))
    return made.eval()


def missed(new: nn.Module, old: nn.Module) -> float:
    x = images(128, 77)
    with torch.no_grad():
        made, wanted = new(x), old(x)
    return ((made - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()).item()


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_a_refitted_net_answers_more_like_the_original_and_tells_by_how_much() -> None:
    model = net()
    before = state(model)
    plan, given = cs.decompose(model, images(1), block="dw-pw"), {"data": images(96), "method": "svd"}
    fitted = cs.rewrite(model, plan, **given)
    done = cs.rewrite(model, plan, refit_steps=100, **given)
    assert fitted.refit is None
    assert done.refit is not None
    assert done.refit.after < 0.9 * done.refit.before
    assert f"after step {done.refit.kept} of 100" in done.refit.line
    assert missed(done.model, model) < 0.9 * missed(fitted.model, model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    again = cs.apply(model, plan, refit_steps=100, **given)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in done.model.state_dict().items())


def test_norms_keep_their_statistics_and_weights_their_settings() -> None:
    model = net()
    made = cs.apply(model, cs.decompose(model, images(1), block="dw-pw"))
    made.train()
    made[0].weight.requires_grad_(False)
    before = state(made)
    graph = cs.capture(model, images(1))
    refit_jointly(pairs_of(graph, graph, model, made), images(64), images(16, 5), 30)
    statistics = [name for name in before if "running" in name or "num_batches" in name]
    assert len(statistics) == 12
    assert all(torch.equal(before[name], made.state_dict()[name]) for name in statistics)
    assert not all(torch.equal(tensor, made.state_dict()[name]) for name, tensor in before.items())
    assert all(module.training for module in made.modules())
    assert [name for name, p in made.named_parameters() if not p.requires_grad] == ["0.weight"]
    assert all(p.grad is None for p in made.parameters())


def test_weights_stay_as_fitted_where_no_step_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint_refit, "RATE", 1e3)
    model = net()
    made = cs.apply(model, cs.decompose(model, images(1), block="cp:r=4"), data=images(64))
    before, graph = state(made), cs.capture(model, images(1))
    found = refit_jointly(pairs_of(graph, graph, model, made), images(64), images(16, 5), 30)
    assert (found.kept, found.after) == (0, found.before)
    assert all(torch.equal(tensor, made.state_dict()[name]) for name, tensor in before.items())
    assert found.line.startswith("joint refit: none of 30 steps was better")


def test_removed_units_are_matched_no_more() -> None:
    model = net()
    graph = cs.capture(model, images(1))
    assert [name for name, *_ in pairs_of(graph, graph, model, model)] == [OUTPUT, "2", "3", "5", "6"]
    done = cs.rewrite(model, planned(graph, [Remove(("6",), "stage2")], []), data=images(64), refit_steps=20)
    assert done.refit is not None
    assert done.refit.after <= done.refit.before


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"refit_steps": 5}, "a joint refit needs images"),
        ({"refit_steps": 5, "method": "none"}, "a joint refit needs images"),
        ({"refit_steps": -1, "data": images(8)}, "refit_steps is -1"),
    ],
)
def test_refusals(given: dict[str, object], told: str) -> None:
    model = net()
    with pytest.raises(ConvsmithError, match=told):
        cs.apply(model, cs.decompose(model, images(1), block="cp:r=4"), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 2, 7, 96])
def test_some_images_fit_and_others_judge(count: int) -> None:
    fitted, judging = parted(images(count))
    assert len(judging) == max(1, count // 8)
    assert len(fitted) + len(judging) == count or count == 1


def test_images_vary_and_signals_and_several_inputs_do_not() -> None:
    rows, draw = torch.tensor([2, 0, 2]), torch.Generator().manual_seed(1)
    signals = torch.rand(4, 3, 10)
    assert torch.equal(varied(signals, rows, draw), signals[rows])  # type: ignore[arg-type]
    two = (torch.rand(4, 3), torch.rand(4, 5))
    several = varied(Several(two, Signature.of(nn.Bilinear(3, 5, 2), two)), rows, draw)
    assert isinstance(several, Several)
    assert torch.equal(several.tensors[1], two[1][rows])
    flat = Bytes(torch.full((4, 3, 16, 16), 51, dtype=torch.uint8), lambda x: x / 255)
    seen = torch.cat([varied(flat, rows, draw) for _ in range(20)])  # type: ignore[misc]
    assert set(seen.unique().tolist()) == {0.0, flat[:1].max().item()}
    assert len({tuple(image.flatten().tolist()) for image in seen}) > 5
    assert len(take_images(signals, 4, axes=1)) == 4
