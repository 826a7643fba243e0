"""Plans of nets that take more than one image: the call goes through JSON, and the new net is called the same."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convsmith as cs
from convsmith.errors import PlanError
from convsmith.graph.call_record import call_record, read_call
from convsmith.graph.signature import Signature


class Two(nn.Module):
    """A net of two images, one of them at times of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 16, 3, padding=1)
        self.joint = nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
        return self.joint(torch.cat([self.left(a), self.right(b.float()) * scale], 1))


class Many(Two):
    def forward(self, images: list[Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(*images)


class Named(Two):
    def forward(self, batch: dict[str, Any]) -> Tensor:  # type: ignore[override]
        return super().forward(batch["a"], *batch["rest"])


X = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
CALLS: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...], dict[str, Any]]] = {
    "two": (Two, (X, X), {}),
    "a number": (Two, (X, X, 0.5), {}),
    "by name": (Two, (X,), {"b": X}),
    "whole numbers": (Two, (X, (9 * X).long()), {}),
    "a list": (Many, ([X, X],), {}),
    "a dictionary with a tuple": (Named, ({"a": X, "rest": (X,)},), {}),
    "a dictionary for forward's own names": (Two, ({"a": X, "b": X},), {}),
}


def called(net: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], case: str) -> Tensor:
    out: Tensor = net(**args[0]) if "forward" in case else net(*args, **kwargs)
    return out


@pytest.mark.parametrize("case", CALLS)
def test_a_plan_applies_before_and_after_json(case: str) -> None:
    build, args, kwargs = CALLS[case]
    torch.manual_seed(0)
    net = build().eval()
    graph = cs.capture(net, *args, **kwargs)
    plan = cs.decompose(graph, block="dw-pw:r=9")
    assert {edit.layer for edit in plan.edits} >= {"joint"}
    again = cs.Plan.from_json(plan.to_json())
    assert again == plan
    assert plan.call is not None
    assert cs.organize(graph).call == plan.call
    for each in (plan, again):
        new = cs.apply(net, each)
        assert new.joint is not net.joint
        with torch.no_grad():
            torch.testing.assert_close(
                called(new, args, kwargs, case), called(net, args, kwargs, case), rtol=1e-3, atol=1e-4
            )


def test_a_plan_of_one_image_keeps_no_call() -> None:
    plan = cs.decompose(cs.capture(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), X))
    assert plan.call is None
    assert "call" not in json.loads(plan.to_json())


def test_what_no_plan_can_keep_is_refused_when_it_is_applied() -> None:
    class Asking(Two):
        def forward(self, a: Tensor, how: object) -> Tensor:  # type: ignore[override]
            return super().forward(a, a)

    net = Asking()
    plan = cs.decompose(cs.capture(net, X, torch.device("cpu")))
    with pytest.raises(PlanError, match="is called with a device, which a plan cannot keep"):
        cs.apply(net, cs.Plan.from_json(plan.to_json()))


TENSOR = {"tensor": "a", "shape": [1, 3, 8, 8], "dtype": "float32", "batched": True}


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({}, "holds no args and kwargs"),
        ({"args": [TENSOR], "kwargs": None}, "holds no args and kwargs"),
        ({"args": [TENSOR | {"dtype": "load"}], "kwargs": {}}, "tells no shape and type of 'a'"),
        ({"args": [TENSOR | {"shape": [1, -3]}], "kwargs": {}}, "tells no shape and type of 'a'"),
        ({"args": [TENSOR | {"shape": [1, 10**9, 10**9]}], "kwargs": {}}, "the plan's input 'a': .* is too large"),
        ({"args": [{"tuple": [], "more": 1}], "kwargs": {}}, "which is no argument"),
        ({"args": [json.loads(900 * "[" + 900 * "]")], "kwargs": {}}, "is nested too deeply"),
        ({"args": [{"tensor": "a"}], "kwargs": {}}, "which is no argument"),
    ],
)
def test_spoiled_records_are_refused(record: dict[str, Any], told: str) -> None:
    with pytest.raises(cs.ConvsmithError, match=told):
        read_call(record)


def test_calls_read_back_are_those_that_were_written() -> None:
    signature = Signature.of(Two(), (X, X, 0.5))
    args, kwargs = read_call(json.loads(json.dumps(call_record(signature)))).call([X, X])
    assert args[2] == 0.5
    assert len(args) == 3
    assert not kwargs


def test_images_without_a_batch_stay_so() -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.joint = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)

        def forward(self, images: list[Tensor]) -> Tensor:
            return self.joint(self.first(torch.stack(images)))

    plan = cs.decompose(cs.capture(Detector(), [X[0], X[0]]), block="dw-pw")
    slots = read_call(cs.Plan.from_json(plan.to_json()).call or {}).slots
    assert [(slot.shape, slot.batched) for slot in slots] == [((3, 8, 8), False)] * 2
    assert cs.apply(Detector(), plan)([X[0], X[0]]).shape == (2, 32, 8, 8)
