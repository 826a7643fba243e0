"""Ranks under a budget: the chooser against exhaustive search, and plans that spend a budget on a trained net."""

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import convsmith as cs
from convsmith.blocks import DwPw
from convsmith.calibration.calibrate import calibrate
from convsmith.errors import ConvsmithError
from convsmith.plan import Request
from convsmith.planning.allocation import choose
from convsmith.planning.by_error import Trained, _candidates, plan_by_error
from convsmith.planning.candidates import Trial
from convsmith.planning.pricing import Choice, Effect, Offer, Pricing

LAYERS = st.lists(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 60)), min_size=1, max_size=4), min_size=1, max_size=5
)


@given(layers=LAYERS, limit=st.integers(1, 160))
@settings(max_examples=200, deadline=None)
def test_no_other_choice_within_the_limit_is_better(layers: list[list[tuple[int, int]]], limit: int) -> None:
    options = [[Choice(None, macs, output=error / 8) for macs, error in layer] for layer in layers]
    fitting = [each for each in product(*options) if sum(choice.cost for choice in each) <= limit]
    chosen = choose(options, limit)
    if not fitting:
        assert chosen is None
    else:
        assert chosen is not None
        assert sum(choice.cost for choice in chosen) <= limit
        assert sum(choice.output for choice in chosen) == min(sum(c.output for c in each) for each in fitting)


@given(layers=LAYERS, share=st.floats(0.3, 0.9))
@settings(max_examples=50, deadline=None)
def test_large_costs_keep_the_limit(layers: list[list[tuple[int, int]]], share: float) -> None:
    options = [[Choice(None, macs * 1_234_567, output=error) for macs, error in layer] for layer in layers]
    limit = share * sum(max(choice.cost for choice in layer) for layer in options)
    chosen = choose(options, limit)
    assert chosen is None or sum(choice.cost for choice in chosen) <= limit


def trained() -> nn.Sequential:
    """Two convolutions behind a stem: the answer depends on the second alone, as the first's is scaled away."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    ).eval()  # fmt: skip
    with torch.no_grad():
        net[2].weight *= 0.01  # its responses are almost its bias: errors in them reach nothing
        net[2].bias += 1
    return net


class Gated(nn.Module):
    """What is let through of the input depends on its means."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(x)


IMAGES = torch.rand(32, 3, 10, 10, generator=torch.Generator().manual_seed(1))


def test_a_budget_is_spent_where_errors_reach_the_output() -> None:
    net = trained()
    graph = cs.capture(net, IMAGES[:1])
    plan = plan_by_error(Trained(net, graph, IMAGES, "gsvd"), Request("dw-pw", 0.75))
    assert [edit.layer for edit in plan.edits] == ["2"]
    assert plan.new.macs <= 0.75 * plan.base.macs
    assert plan.asked == Request("dw-pw", 0.75, by="errors")
    assert plan.edits[0].output_error is not None
    assert "output" in plan.edits[0].reason
    blind = cs.decompose(graph, block="dw-pw", max_macs=0.75)
    assert {edit.layer for edit in blind.edits} == {"2", "4"}, "by costs alone both give way"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("share", [0.66, 0.75, 0.9])
def test_what_a_choice_does_to_the_output_is_measured(share: float, bias: bool) -> None:
    """At every rank: a layer's own error says little of it, as what is lost at low ranks does not average out."""
    net = trained()
    net[4].bias = net[4].bias if bias else None
    graph, found = cs.capture(net, IMAGES[:1]), calibrate(net, IMAGES)
    plan = plan_by_error(Trained(net, graph, IMAGES, "gsvd", found), Request("dw-pw", share, keep=("2",)))
    (edit,) = plan.edits
    new = cs.apply(net, plan, method="gsvd", statistics=found)
    with torch.no_grad():
        answer, made = net(IMAGES).double(), new(IMAGES).double()
    missed = (made - answer).square().sum() / (answer - answer.mean(0)).square().sum()
    assert edit.output_error == pytest.approx(missed.sqrt().item(), rel=0.03), edit.block


def test_a_price_does_not_depend_on_the_order_asked_in() -> None:
    """Runs go on from where the last began; what a call writes into stays as it was for the next."""
    writing = [nn.ReLU(inplace=True) if isinstance(module, nn.ReLU) else module for module in trained()]
    asked = [(layer, nn.Conv2d(16, 16, 3, padding=1).eval()) for layer in ("4", "2", "2", "4")]
    one = Effect(nn.Sequential(*writing), IMAGES)
    told = [one.on_output(layer, block) for layer, block in asked]
    assert told == [Effect(trained(), IMAGES).on_output(layer, block) for layer, block in asked]
    assert len(set(told)) == 4


def test_ranks_between_those_fitted_are_chosen_too() -> None:
    net = trained()
    plan = plan_by_error(Trained(net, cs.capture(net, IMAGES[:1]), IMAGES, "als"), Request("cp:r=2", 0.62, keep=("2",)))
    assert 0.97 * 0.62 <= plan.new.macs / plan.base.macs <= 0.62


def test_a_layers_own_block_stays_and_counts() -> None:
    net = trained()
    budget = Request("dw-pw", 0.55, overrides={"4": "cp:r=20"})
    plan = plan_by_error(Trained(net, cs.capture(net, IMAGES[:1]), IMAGES, "gsvd"), budget)
    assert {edit.layer: edit.block.partition(":")[0] for edit in plan.edits} == {"2": "dw-pw", "4": "cp"}
    assert plan.edits[1].block == "cp:r=20"
    assert 0.8 * 0.55 < plan.new.macs / plan.base.macs <= 0.55


def test_decompose_with_data_decides_and_apply_executes() -> None:
    net = trained()
    graph = cs.capture(net, IMAGES[:1])
    plan = cs.decompose(graph, block="dw-pw", max_macs=0.75, model=net, data=IMAGES, method="gsvd")
    assert plan == plan_by_error(Trained(net, graph, IMAGES, "gsvd"), Request("dw-pw", 0.75))
    assert plan == cs.decompose(net, IMAGES[:1], block="dw-pw", max_macs="75%", data=IMAGES, method="gsvd")
    blind = cs.decompose(graph, block="dw-pw", max_macs=0.75)
    new = cs.rewrite(net, blind, data=IMAGES, method="gsvd")
    assert [edit.block for edit in new.plan.edits] == [edit.block for edit in blind.edits]
    assert isinstance(new.model[4], nn.Sequential)


UNFIT = {
    "data without a limit": ({"data": IMAGES}, "data chooses ranks under a limit"),
    "two limits": ({"max_macs": 0.5, "max_latency": 0.5}, "limit either MACs or latency"),
    "a method without data": ({"method": "als"}, "a method fits weights to data"),
    "a limit of no number": ({"max_macs": "much"}, "max_macs: 'much' cannot be read; write a limit above 0"),
    "a limit of nothing": ({"max_macs": 0}, "max_macs: 0 cannot be read"),
}


@pytest.mark.parametrize(("options", "sentence"), UNFIT.values(), ids=UNFIT)
def test_what_would_do_nothing_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConvsmithError, match=sentence):
        cs.decompose(trained(), IMAGES[:1], **options)


def test_data_needs_the_trained_net() -> None:
    with pytest.raises(ConvsmithError, match="data is fitted to a trained net; give model= beside the graph"):
        cs.decompose(cs.capture(trained(), IMAGES[:1]), max_macs=0.5, data=IMAGES)


def test_auto_takes_the_form_with_the_smaller_error() -> None:
    net = trained()
    with torch.no_grad():  # a three-way form of eight terms is exact, no other form of few factors is
        factors = [torch.randn(shape) for shape in ((16, 8), (8, 16), (8, 9))]
        net[4].weight.copy_(torch.einsum("nr,rc,rk->nck", *factors).view(16, 16, 3, 3))
    plan = plan_by_error(Trained(net, cs.capture(net, IMAGES[:1]), IMAGES, "als"), Request("auto", 0.7, keep=("2",)))
    assert [edit.block.partition(":")[0] for edit in plan.edits] == ["cp"]


def test_only_what_no_cheaper_block_betters_is_run_to_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted, run = [], []
    fit, on_output = Pricing._fit, Effect.on_output
    monkeypatch.setattr(Pricing, "_fit", lambda *a: (fitted.append(str(a[3])), fit(*a))[1])
    monkeypatch.setattr(Effect, "on_output", lambda *a: (run.append(a[1]), on_output(*a))[1])
    net = trained()
    plan = plan_by_error(Trained(net, cs.capture(net, IMAGES[:1]), IMAGES, "svd"), Request("auto", 0.5))
    assert plan.new.macs <= 0.5 * plan.base.macs
    assert {text.partition(":")[0] for text in fitted} == {"dw-pw", "spatial", "tucker", "channel"}
    assert 0 < len(run) < len(fitted)


def test_blocks_dearer_or_cheaper_than_all_that_were_run_are_not_offered() -> None:
    trials = [Trial(DwPw(r), 0, 100 * r, 1.0, True) for r in (9, 7, 5, 3, 2, 1)]
    offer = Offer(trials, [trial.macs for trial in trials])
    assert [trial.block for trial, _ in offer.spread()] == [DwPw(r) for r in (9, 5, 3, 1)]
    choices = list(offer.choices({"dw-pw:r=9": (0.01, 0.001), "dw-pw:r=5": (0.04, 0.004)}))
    assert [choice.cost for choice in choices] == [900, 700, 500]
    assert choices[1].error == pytest.approx(0.02)  # halfway, in logarithms
    assert list(offer.choices({})) == []


def test_auto_lowers_the_rank_of_pointwise_convolutions_too() -> None:
    """Half of a bottleneck's MACs are in them; a gate's own, on one pixel, are left alone."""
    gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 16, 1), nn.Sigmoid())
    thin = nn.Conv2d(16, 16, 1)
    with torch.no_grad():
        thin.weight.copy_((torch.randn(16, 4) @ torch.randn(4, 16)).view(16, 16, 1, 1))
    layers = [*trained()[:-3], thin, nn.ReLU()]
    net = nn.Sequential(*layers, Gated(gate), *trained()[-3:]).eval()
    graph = cs.capture(net, IMAGES[:1])
    budget = Request("auto", 0.3)
    plan = plan_by_error(Trained(net, graph, IMAGES, "als"), budget)
    assert plan.new.macs <= 0.3 * plan.base.macs
    assert {edit.layer: edit.block for edit in plan.edits}["6"] == "channel:r=4"
    assert {refusal.layer: refusal.reason for refusal in plan.refusals} == {
        "0": "it is a stem with 3 input channels, too few to factorize",
        "8.gate.1": "a 1x1 kernel is already pointwise",
    }
    cs.apply(net, plan, data=IMAGES, method="als")


def test_statistics_alone_choose_by_the_layers_own_errors() -> None:
    net = trained()
    graph = cs.capture(net, IMAGES[:1])
    plan = plan_by_error(Trained(net, graph, None, "gsvd", calibrate(net, IMAGES)), Request("dw-pw", 0.6))
    assert plan.new.macs <= 0.6 * plan.base.macs
    with pytest.raises(ConvsmithError, match="statistics lack 2"):
        plan_by_error(Trained(net, graph, None, "gsvd", calibrate(net, IMAGES, ["4"])), Request("dw-pw", 0.6))


def test_layers_are_priced_in_order_of_execution() -> None:
    """Whatever family takes them: so that each run to the output begins where the last one did."""
    net = nn.Sequential(nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 1))
    found, _ = _candidates(cs.capture(net, torch.zeros(1, 16, 8, 8)), Request("auto", 0.5))
    assert list(found) == ["0", "2", "4"]
    assert [len(families) for families in found.values()] == [1, 5, 1]


class Two(nn.Module):
    """Two heads of very different scales, and one that is always zero."""

    def __init__(self) -> None:
        super().__init__()
        self.body = trained()[:-3]
        self.first, self.second = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        nn.init.constant_(self.second.weight[:, :8], 0)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.body(x)
        return self.first(y), 1e4 * self.second(y), 0 * y


def test_all_outputs_count_alike() -> None:
    torch.manual_seed(0)
    net = Two().eval()
    effect, lost = Effect(net, IMAGES), nn.Conv2d(16, 16, 3, padding=1, bias=False)
    nn.init.zeros_(lost.weight)
    with torch.no_grad():
        answers = net(IMAGES)[:2]
    for layer, bias, answer in (("first", net.first.bias, answers[0]), ("second", 1e4 * net.second.bias, answers[1])):
        assert bias is not None
        missed = (answer - 0).square().sum() / (answer - answer.mean(0)).square().sum()
        assert effect.on_output(layer, lost) == pytest.approx(missed.item() / 2, rel=1e-4), layer


def test_one_image_prices_ranks_too() -> None:
    net = trained()
    plan = plan_by_error(Trained(net, cs.capture(net, IMAGES[:1]), IMAGES[:1]), Request("auto", 0.6))
    assert plan.new.macs <= 0.6 * plan.base.macs


def test_a_net_that_answers_zeros_or_nan_is_refused() -> None:
    for value in (0.0, torch.nan):
        net = trained()
        nn.init.constant_(net[-1].weight, value)
        nn.init.zeros_(net[-1].bias)
        with pytest.raises(ConvsmithError, match=r"^Sequential answers zeros, NaN or infinity to these images; check"):
            plan_by_error(Trained(net, cs.capture(net, IMAGES[:1]), IMAGES), Request("auto", 0.6))


@pytest.mark.parametrize(("method", "forms"), [("svd", {"dw-pw"}), ("compensated", {"dw-pw"}), ("tensorly", {"cp"})])
def test_of_the_forms_those_compete_that_the_method_knows(method: str, forms: set[str]) -> None:
    if method == "tensorly":
        pytest.importorskip("tensorly")
    net = trained()
    plan = plan_by_error(Trained(net, cs.capture(net, IMAGES[:1]), IMAGES, method), Request("auto", 0.6))
    assert {edit.block.partition(":")[0] for edit in plan.edits} == forms


def test_a_budget_that_nothing_can_meet_is_refused() -> None:
    net = trained()
    with pytest.raises(ConvsmithError, match=r"1.000 of its MACs, more than the 0.300 allowed"):
        plan_by_error(Trained(net, cs.capture(net, IMAGES[:1]), IMAGES), Request("auto", 0.3, keep=("2", "4")))
    assert choose([], -1) is None


def test_a_mistake_in_a_layer_names_it() -> None:
    net = trained()
    nn.init.constant_(net[2].weight, torch.inf)
    graph, statistics = cs.capture(net, IMAGES[:1]), calibrate(trained(), IMAGES)
    with pytest.raises(ConvsmithError, match=r"^2: The weight to decompose holds NaN or infinity"):
        plan_by_error(Trained(net, graph, None, None, statistics), Request("dw-pw", 0.6))
    with pytest.raises(ConvsmithError, match=r"^2: The weight to decompose holds NaN or infinity; load a sound"):
        cs.apply(net, cs.decompose(graph, block="dw-pw"))


def test_layers_that_the_block_makes_dearer_stay() -> None:
    net = trained()
    plan = plan_by_error(Trained(net, cs.capture(net, IMAGES[:1]), IMAGES, "als"), Request("cp:r=80", 1.0))
    assert plan.edits == ()
    assert {refusal.layer: refusal.reason for refusal in plan.refusals} == {
        "0": "it is a stem with 3 input channels, too few to factorize",
        "2": "cp:r=80 would cost more",
        "4": "cp:r=80 would cost more",
    }


def test_a_budget_that_cannot_be_met_is_refused() -> None:
    net = trained()
    with pytest.raises(ConvsmithError, match=r"the cheapest plan has 0\.\d+ of its MACs, more than the 0.010 allowed"):
        plan_by_error(Trained(net, cs.capture(net, IMAGES[:1]), IMAGES, "gsvd"), Request("dw-pw", 0.01))


def test_planning_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each price is worked out once, whatever stops the call; the plan is the same."""
    net, graph, worked = trained(), cs.capture(trained(), IMAGES[:1]), []
    ask = partial(cs.decompose, graph, model=net, data=IMAGES, max_macs=0.6, method="gsvd", prices=tmp_path / "kept")
    whole, on_output = cs.decompose(graph, model=net, data=IMAGES, max_macs=0.6, method="gsvd"), Effect.on_output

    def stopping(self: Effect, layer: str, block: nn.Module) -> float:
        worked.append(layer)
        if len(worked) == 3:
            raise KeyboardInterrupt
        return on_output(self, layer, block)

    monkeypatch.setattr(Effect, "on_output", stopping)
    with pytest.raises(KeyboardInterrupt):
        ask()
    with (tmp_path / "kept").open("a") as file:
        file.write('{"layer": "cut o')
    assert ask() == whole
    told = len(worked)
    assert ask() == whole
    assert len(worked) == told, "all of them are kept"
    assert "cut o" not in (tmp_path / "kept").read_text()


def test_prices_of_other_weights_images_or_settings_are_not_taken(tmp_path: Path) -> None:
    net, kept = trained(), tmp_path / "kept"
    first = cs.decompose(net, IMAGES[:1], data=IMAGES, max_macs=0.6, method="gsvd", prices=kept)
    with torch.no_grad():
        net[4].weight.mul_(torch.rand(16, 1, 1, 1))
    for options in ({"data": IMAGES}, {"data": IMAGES.flip(0)}, {"data": IMAGES, "method": "svd"}):
        again = cs.decompose(net, IMAGES[:1], max_macs=0.6, prices=kept, **options)
        assert again == cs.decompose(net, IMAGES[:1], max_macs=0.6, **options)
        assert again != first
