"""Writes through views: followed where views are boxes in one memory, named where not, and run again as they were."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import convsmith as cs
from convsmith.graph.capture import capture
from convsmith.graph.replay import Replay
from convsmith.testing.oracles import disagreements, exceeded, transparent

Forward = Callable[[nn.Module, Tensor], Tensor]
SHAPE = (4, 6, 6)


class Net(nn.Module):
    """A grouped convolution, so that channels differ in what they see; a forward of the test's own; a convolution."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.first, self.then = nn.Conv2d(4, 4, 3, padding=1, groups=2), forward
        self.last = nn.Conv2d(4, 4, 1, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.then(self, self.first(x)))


def swapped(net: nn.Module, x: Tensor) -> Tensor:
    new = torch.zeros(x.shape, dtype=x.dtype)
    new[:, :2] = x[:, 2:]
    new[:, 2:] = x[:, :2]
    return new


def half_filled(net: nn.Module, x: Tensor) -> Tensor:
    new = torch.zeros(x.shape, dtype=x.dtype)
    new[:, 1:3] = x[:, :2]
    return new


def shifted(net: nn.Module, x: Tensor) -> Tensor:
    new = torch.zeros_like(x)
    new[:, :1, :, 1:] = x[:, :1, :, :-1]
    new[:, 1:2, :-1] = x[:, 1:2, 1:]
    new[:, 2:] = x[:, 2:]
    return new


def shuffled_pixels(net: nn.Module, x: Tensor) -> Tensor:
    new = torch.empty(1, 4, 12, 12, dtype=x.dtype)
    for place, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        new[:, :, row::2, column::2] = x.roll(place, 1)
    return new


def selected(net: nn.Module, x: Tensor) -> Tensor:
    new = torch.zeros(4, 6, 6, dtype=x.dtype)
    for channel in range(4):
        new[channel] = x[0, 3 - channel]
    return new[None]


def part_then_whole(net: nn.Module, x: Tensor) -> Tensor:
    x[:, :2, ::2].add_(x[:, 2:, 1::2])
    return x


def whole_then_part(net: nn.Module, x: Tensor) -> Tensor:
    part = x[:, 1:]
    x.add_(x.flip(1))
    return torch.cat([part, part[:, :1]], 1)


def parts_that_overlap(net: nn.Module, x: Tensor) -> Tensor:
    left, middle = x[:, :3], x[:, 1:]
    left.mul_(left.roll(1, 2))
    middle.add_(left.roll(1, 3))
    return torch.cat([left[:, :2], middle[:, :2]], 1)


def bordered(net: nn.Module, x: Tensor) -> Tensor:
    x[:, :, 0] = 0
    x[..., -1] = x[..., 0]
    return x


def inner(net: nn.Module, x: Tensor) -> Tensor:
    new = torch.zeros(1, 4, 10, 10, dtype=x.dtype)
    new[:, :, 2:-2, 2:-2].copy_(x)
    return new


def through_other_shapes(net: nn.Module, x: Tensor) -> Tensor:
    groups = x.view(1, 2, 2, 6, 6)
    rows = x.permute(0, 2, 3, 1)
    groups[:, 0] = groups[:, 1].clone()
    rows[:, 3:, :, 1:].zero_()
    return x


def split_in_place(net: nn.Module, x: Tensor) -> Tensor:
    first, second = x.narrow(1, 0, 2), x[:, 2:]
    first.add_(second)
    second.mul_(first.roll(1, 3))
    return x


def a_table_filled_beside(net: nn.Module, x: Tensor) -> Tensor:
    new = torch.zeros(1, 4, 6, 6, dtype=x.dtype)
    left, right = new[:, :2], new[:, 2:]
    left.copy_(x[:, 2:])
    right.fill_(2.0)
    return new + right.sum()


FOLLOWED = [
    swapped, half_filled, shifted, shuffled_pixels, selected, part_then_whole, whole_then_part, parts_that_overlap,
    bordered, inner, through_other_shapes, split_in_place,
]  # fmt: skip


@pytest.mark.parametrize("forward", FOLLOWED)
def test_a_write_into_a_part_is_followed(forward: Forward) -> None:
    net = transparent(Net(forward))
    graph = capture(net, torch.zeros(1, *SHAPE, dtype=torch.float64))
    assert not graph.unknown_ops
    assert {node.module for node in graph.layers} == {"first", "last"}
    reach = graph.reaches()[graph.outputs[0]]
    assert not reach.bound
    assert list(disagreements(net, SHAPE, reach)) == []


def by_indices(net: nn.Module, x: Tensor) -> Tensor:
    new = torch.zeros(1, 4, 6, 6, dtype=x.dtype)
    new[:, [3, 1]] = x[:, :2]
    return new + 0 * x[:, :1]


def by_tables_of_places(net: nn.Module, x: Tensor) -> Tensor:
    x[:, :, torch.tensor([0, 2])] = x[:, :, 3:5].roll(1, 1)
    return x


def by_a_mask_of_its_own(net: nn.Module, x: Tensor) -> Tensor:
    x[:, torch.tensor([True, False, False, True])] = 0.0
    return x


BY_TABLES = [by_indices, by_tables_of_places, by_a_mask_of_its_own]


@pytest.mark.parametrize("forward", BY_TABLES)
def test_a_write_by_tables_is_a_bound_along_the_dimensions_that_they_index(forward: Forward) -> None:
    net = transparent(Net(forward))
    graph = capture(net, torch.zeros(1, *SHAPE, dtype=torch.float64))
    assert not graph.unknown_ops
    reach = graph.reaches()[graph.outputs[0]]
    assert reach.extent().bound
    assert not any(exceeded(computed, found) for _, computed, found in disagreements(net, SHAPE, reach))
    if forward is by_indices:
        assert reach.extent().window == (3, 3), "channels are indexed, and places stay"


def by_another_type(net: nn.Module, x: Tensor) -> Tensor:
    x.view(torch.int32)[..., :2].zero_()
    return x


def by_strides_that_overlap(net: nn.Module, x: Tensor) -> Tensor:
    wide = x.as_strided((1, 4, 6, 6), (144, 35, 6, 1))
    x[:, :2].mul_(2)
    return wide


def by_lists(net: nn.Module, x: Tensor) -> Tensor:
    new = [torch.zeros(1, 2, 6, 6, dtype=x.dtype) for _ in range(2)]
    torch._foreach_add_(new, [x[:, :2], x[:, 2:]])
    return torch.cat(new, 1)


def by_another_memory(net: nn.Module, x: Tensor) -> Tensor:
    new = torch.zeros(1, dtype=x.dtype)
    new.set_(x.clone())
    return new


NAMED = {
    by_another_type: "through a view", by_strides_that_overlap: "through a view", by_lists: "aten._foreach_add_.List",
    by_another_memory: "aten.set_.source_Tensor",
}  # fmt: skip


@pytest.mark.parametrize("forward", NAMED)
def test_a_write_that_cannot_be_followed_is_named_and_all_behind_is_listed(forward: Forward) -> None:
    graph = capture(Net(forward), torch.zeros(1, *SHAPE))
    assert any(op.endswith(NAMED[forward]) for op in graph.unknown_ops)
    assert graph.params == sum(parameter.numel() for parameter in Net(forward).parameters())
    assert graph.outputs == (graph.layers[-1].name,)
    assert graph.outputs[0] not in graph.reaches()
    refusals = {refusal.layer: refusal.reason for refusal in cs.decompose(graph, block="dw-pw").refusals}
    assert "op without a rule" in refusals["last"]


@pytest.mark.parametrize("forward", [*FOLLOWED, a_table_filled_beside, *BY_TABLES, by_lists])
def test_writes_are_run_again_as_they_were(forward: Forward) -> None:
    net = Net(forward).eval()
    replay = Replay(net, capture(net, torch.zeros(1, *SHAPE)))
    for _ in range(2):
        x = torch.rand(1, *SHAPE)
        alive = replay.start(x.clone())
        replay.run(alive, 0, len(replay.graph.nodes))
        with torch.no_grad():
            assert torch.equal(alive[replay.graph.outputs[0]], net(x))


def test_a_table_that_changes_between_reads_has_both_states() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        table = torch.zeros(1, 4, 1, 1)
        x = x + table
        table.add_(1)
        return x * table

    net = Net(forward).eval()
    graph, x = capture(net, torch.zeros(1, *SHAPE)), torch.rand(1, *SHAPE)
    replay = Replay(net, graph)
    alive = replay.start(x)
    replay.run(alive, 0, len(graph.nodes))
    with torch.no_grad():
        assert torch.equal(alive[graph.outputs[0]], net(x))


def test_a_plan_is_applied_behind_a_table_filled_by_slices() -> None:
    class Swap(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            new = torch.zeros(x.shape)
            new[:, :8], new[:, 8:] = x[:, 8:], x[:, :8]
            return self.b(F.relu(new))

    net = Swap().eval()
    plan = cs.decompose(cs.capture(net, torch.zeros(1, 3, 12, 12)), block="dw-pw")
    assert {edit.layer for edit in plan.edits} | {refusal.layer for refusal in plan.refusals} == {"a", "b"}
    for data in (None, torch.rand(4, 3, 12, 12)):
        assert cs.apply(net, plan, data=data)(torch.rand(2, 3, 12, 12)).shape == (2, 16, 12, 12)
