"""Plans for a target: held to what is measured there, planned again where they miss, refused where none keeps it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.errors import BudgetError, ConvsmithError
from convsmith.latency.clock import Clock
from convsmith.latency.nets import NetTimer
from convsmith.plan import Plan, Replace
from convsmith.target import Target


@pytest.fixture(scope="module")
def vgg() -> nn.Module:
    return cs.build("vgg11", input=(3, 32, 32), classes=10)


@pytest.fixture(scope="module")
def graph(vgg: nn.Module) -> cs.Graph:
    return cs.capture(vgg, torch.zeros(1, 3, 32, 32))


def measures(monkeypatch: pytest.MonkeyPatch, factor: float) -> list[float]:
    """Times of new nets are so many times their share of the MACs; the shares come back."""
    shares: list[float] = []

    def beside(self: NetTimer, other: nn.Module) -> tuple[float, float]:
        graph = cs.capture(other, torch.zeros(1, 3, 32, 32))
        shares.append(graph.macs / self._graph.macs)
        return 1.0, factor * shares[-1]

    monkeypatch.setattr(NetTimer, "beside", beside)
    return shares


@pytest.fixture
def by_macs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that takes a nanosecond for every multiply-accumulate."""

    def all_seconds(self, spec, size, blocks):  # type: ignore[no-untyped-def]
        modules = [spec.standard() if block is None else block.build(spec) for block in blocks]
        return [1e-9 * cs.capture(nn.Sequential(m), torch.zeros(1, spec.in_channels, *size)).macs for m in modules]

    monkeypatch.setattr(Clock, "all_seconds", all_seconds)
    monkeypatch.setattr(Clock, "set_pace", lambda self, run: 1e-9 * 153e6)
    monkeypatch.setattr(Clock, "fit_below", lambda self, total, layers: None)


@pytest.mark.usefixtures("by_macs")
def test_a_plan_that_misses_is_planned_again(vgg: nn.Module, graph: cs.Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = measures(monkeypatch, 1.3)
    plan = cs.decompose(graph, model=vgg, max_latency=0.6, target="eager")
    assert len(shares) > 1
    assert plan.measured_ms is not None
    assert plan.measured_ms[1] <= 0.6 * plan.measured_ms[0]
    assert plan.asked is not None
    assert (plan.asked.target, plan.asked.max_latency) == (Target("eager"), 0.6)
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.usefixtures("by_macs")
def test_a_limit_that_no_plan_keeps_is_refused(
    vgg: nn.Module, graph: cs.Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    measures(monkeypatch, 30.0)
    with pytest.raises(BudgetError, match=r"the plan takes .* of the net's time in eager when measured, more than"):
        cs.decompose(graph, model=vgg, max_latency=0.6, target="eager")


@pytest.mark.parametrize("limit", [{}, {"max_macs": 0.5}])
def test_nor_is_a_slower_net_planned_by_macs(
    limit: dict[str, float], vgg: nn.Module, graph: cs.Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = measures(monkeypatch, 1.5)
    plan = cs.decompose(graph, model=vgg, target="eager", **limit)  # type: ignore[arg-type]
    assert plan.measured_ms == pytest.approx((1e3, 1.5e3 * shares[-1]))
    measures(monkeypatch, 10.0)
    with pytest.raises(BudgetError, match=r"more than the 1\.000 allowed"):
        cs.decompose(graph, model=vgg, target="eager", **limit)  # type: ignore[arg-type]


@pytest.mark.usefixtures("by_macs")
def test_organizing_is_held_to_the_target_too(vgg: nn.Module, graph: cs.Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convsmith.latency.in_target.TargetLatencies.of", lambda self, paths: 1e-3)
    measures(monkeypatch, 1.0)
    plan = cs.organize(graph, model=vgg, max_latency=3.0, target="eager")
    assert plan.measured_ms is not None
    measures(monkeypatch, 30.0)
    with pytest.raises(BudgetError, match="when measured"):
        cs.organize(graph, model=vgg, max_latency=3.0, target="eager")


def test_a_net_runs_in_the_target(vgg: nn.Module, graph: cs.Graph, tmp_path: Path) -> None:
    plan = cs.decompose(
        graph, model=vgg, block="dw-pw", keep=[n.module for n in graph.layers[2:] if n.kind == "conv"],
        target="onnxruntime", latency_file=tmp_path / "l.jsonl",
    )  # fmt: skip
    assert [edit.layer for edit in plan.edits] == [graph.layers[1].module]
    assert plan.measured_ms is not None
    assert 0 < plan.measured_ms[1] <= plan.measured_ms[0]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"target": "eager"}, "the net is run in the target; give model="),
        ({"target": "eagre", "model": True}, "Unknown runtime 'eagre'; did you mean eager?"),
    ],
)
def test_refusals(given: dict[str, object], told: str, vgg: nn.Module, graph: cs.Graph) -> None:
    with pytest.raises(ConvsmithError) as error:
        cs.decompose(graph, **(given | ({"model": vgg} if "model" in given else {})))  # type: ignore[arg-type]
    assert told in str(error.value)


def test_a_plan_changed_by_hand_tells_no_measured_time(vgg: nn.Module, graph: cs.Graph) -> None:
    plan = replace(cs.decompose(graph, block="dw-pw"), measured_ms=(2.0, 1.0))
    assert cs.rewrite(vgg, plan).plan.measured_ms == (2.0, 1.0)
    first, *rest = plan.edits
    assert isinstance(first, Replace)
    changed = replace(plan, edits=(replace(first, block="dw-pw:r=2"), *rest))
    assert cs.rewrite(vgg, changed).plan.measured_ms is None
    record = json.loads(plan.to_json())
    assert cs.Plan.from_json(json.dumps(record)) == plan
    record["edits"].pop()
    assert cs.Plan.from_json(json.dumps(record)).measured_ms is None
