"""Data for nets of several inputs: batches of tuples and dictionaries choose ranks and fit blocks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convsmith as cs
from convsmith.cli.calibration import refuse_several
from convsmith.errors import ConvsmithError, DataError


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 16, 3, padding=1)
        self.joint = nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
        return self.joint(torch.cat([self.left(a), self.right(b.float()) * scale], 1).relu())


class Many(Two):
    def forward(self, images: list[Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(*images)


class Named(Two):
    def forward(self, batch: dict[str, Any]) -> Tensor:  # type: ignore[override]
        return super().forward(batch["a"], *batch["rest"])


GENERATOR = torch.Generator().manual_seed(3)
A, B = (torch.randn(32, 3, 8, 8, generator=GENERATOR).cumsum(1) for _ in range(2))
LABELS = torch.zeros(32)
HALVES = (slice(0, 16), slice(16, 32))

CASES: dict[str, tuple[Callable[[], nn.Module], Any, Any]] = {
    "tuples": (Two, (A[:1], B[:1]), [(A[h], B[h]) for h in HALVES]),
    "tuples with labels": (Two, (A[:1], B[:1]), [(A[h], B[h], LABELS[h]) for h in HALVES]),
    "dictionaries": (Two, (A[:1], B[:1]), [{"b": B[h], "a": A[h]} for h in HALVES]),
    "all in one tuple": (Two, (A[:1], B[:1]), (A, B)),
    "a list as the one argument": (Many, ([A[:1], B[:1]],), [([A[h], B[h]],) for h in HALVES]),
    "a dictionary with a tuple": (
        Named,
        ({"a": A[:1], "rest": (B[:1],)},),
        [{"a": A[h], "rest": (B[h],)} for h in HALVES],
    ),
}


def answers(net: nn.Module, case: str) -> Tensor:
    with torch.no_grad():
        if "list" in case:
            return net([A, B])
        return net({"a": A, "rest": (B,)}) if "with a tuple" in case else net(A, B)


def gap(net: nn.Module, new: nn.Module, case: str) -> float:
    wanted = answers(net, case)
    return ((answers(new, case) - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("case", CASES)
def test_blocks_are_fitted(case: str) -> None:
    build, example, data = CASES[case]
    torch.manual_seed(0)
    net = build().eval()
    plan = cs.decompose(cs.capture(net, *example), block="dw-pw:r=2")
    assert gap(net, cs.apply(net, plan, data=data), case) < gap(net, cs.apply(net, plan), case)


def test_each_way_to_give_data_fits_the_same() -> None:
    torch.manual_seed(0)
    net = Two().eval()
    plan = cs.decompose(cs.capture(net, A[:1], B[:1]), block="dw-pw:r=2")
    made = [cs.apply(net, plan, data=CASES[case][2])(A, B) for case in ("tuples", "dictionaries", "all in one tuple")]
    torch.testing.assert_close(made[1], made[0])
    torch.testing.assert_close(made[2], made[0])
    swapped = cs.apply(net, plan, data=(B, A))(A, B)
    assert not torch.allclose(swapped, made[0], rtol=1e-3)


def test_data_chooses_ranks() -> None:
    torch.manual_seed(0)
    net = Two().eval()
    graph = cs.capture(net, A[:1], B[:1])
    plan = cs.decompose(graph, model=net, data=[(A, B)], max_macs=0.6)
    assert plan.new.macs <= 0.6 * plan.base.macs
    assert plan.call is not None
    errors = cs.rewrite(net, plan, data=[(A, B)]).errors
    assert errors.keys() == {edit.layer for edit in plan.edits}


def test_whole_numbers_stay_whole() -> None:
    class Whole(Two):
        def forward(self, a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
            assert not b.is_floating_point()
            return super().forward(a, b, scale)

    net, whole = Whole().eval(), (9 * B).long()
    plan = cs.decompose(cs.capture(net, A[:1], whole[:1]), block="dw-pw:r=2")
    assert cs.rewrite(net, plan, data=[(A, whole)]).errors


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (A, r"takes more than one image, and the data gives Tensor; give batches of \(a, b\)"),
        ([A], r"has \(32, 3, 8, 8\), and the net reads a \(n, 3, 8, 8\), b \(n, 3, 8, 8\)"),
        ([(A, B[:, :2])], r"has \(32, 3, 8, 8\) and \(32, 2, 8, 8\), and the net reads a"),
        ([(A, B[:3])], r"has \(32, 3, 8, 8\) and \(3, 3, 8, 8\), and the net reads"),
        ([], "is empty; give batches of"),
        (["a"], "has str, and the net reads"),
    ],
)
def test_other_data_is_refused(data: Any, told: str) -> None:
    net = Two().eval()
    plan = cs.decompose(cs.capture(net, A[:1], B[:1]), block="dw-pw:r=2")
    with pytest.raises(DataError, match=told):
        cs.apply(net, plan, data=data)


def test_the_command_line_says_how_from_python() -> None:
    net = Two().eval()
    with pytest.raises(ConvsmithError, match=r"^mine:net: takes several inputs \(a, b\).*; from Python cs.decompose"):
        refuse_several("mine:net", net, None)
    plan = cs.decompose(cs.capture(Many().eval(), [A[:1], B[:1]]))
    with pytest.raises(ConvsmithError, match="takes more than one image, and --data gives images alone"):
        refuse_several("mine:net", Many(), plan)
    refuse_several("mine:net", Many(), None)
