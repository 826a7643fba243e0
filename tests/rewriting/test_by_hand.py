"""A plan is what happens: any part of any plan applies, changes by hand are honoured, totals are torch's."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import convsmith as cs
from convsmith.plan import Edit, Plan, Remove, Repeat, Replace

X = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def net_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    return cs.build(name, input=(3, 16, 16), classes=10).eval()


Made = Callable[[nn.Module], Plan]
PLANS: dict[str, tuple[str, Made]] = {
    "organized": ("resnet20", lambda net: cs.organize(net, X[:1])),
    "organized with copies and removals": ("mobilenet", lambda net: cs.organize(net, X[:1])),
    "each its cheapest block": ("resnet20", lambda net: cs.decompose(net, X[:1])),
    "a limit by costs": ("resnet20", lambda net: cs.decompose(net, X[:1], max_macs=0.3)),
    "a limit by errors": ("resnet20", lambda net: cs.decompose(net, X[:1], max_macs=0.5, data=X)),
    "expanded": ("mobilenet", lambda net: cs.expand(net, X[:1])),
}


@cache
def made(name: str) -> tuple[nn.Module, Plan]:
    zoo, plan = PLANS[name]
    net = net_of(zoo)
    return net, plan(net)


def torch_totals(net: nn.Module, x: Tensor) -> tuple[int, int]:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x[:1])
    return sum(p.numel() for p in net.parameters()), counter.get_total_flops() // 2


@pytest.mark.parametrize("name", PLANS)
@given(data=st.data())
@settings(max_examples=4, deadline=None)
def test_any_part_of_a_plan_applies_and_its_totals_are_those_of_torch(name: str, data: st.DataObject) -> None:
    net, plan = made(name)
    kept = data.draw(st.lists(st.booleans(), min_size=len(plan.edits), max_size=len(plan.edits)))
    part = replace(plan, edits=tuple(edit for edit, stays in zip(plan.edits, kept, strict=True) if stays))
    done = cs.rewrite(net, part, method="none")
    assert (done.plan.new.params, done.plan.new.macs) == torch_totals(done.model, X)
    assert (part.new.params, part.new.macs) == (done.plan.new.params, done.plan.new.macs), "known before it is applied"
    assert part.new.blocks == cs.organize(done.model, X[:1]).base.blocks
    assert [edit.name for edit in done.plan.edits] == [edit.name for edit in part.edits]


@pytest.mark.parametrize("name", PLANS)
def test_the_plan_carried_out_is_the_plan_that_was_made(name: str) -> None:
    net, plan = made(name)
    assert cs.rewrite(net, plan, method="none").plan == plan


def test_data_fits_weights_and_chooses_nothing() -> None:
    """What was struck out stays as it was; what was approved is done, at the ranks that were approved."""
    net, plan = made("a limit by costs")
    part = replace(plan, edits=plan.edits[2:5])
    done = cs.rewrite(net, part, data=X)
    blocks = [(edit.layer, edit.block) for edit in done.plan.edits if isinstance(edit, Replace)]
    assert blocks == [(edit.layer, edit.block) for edit in part.edits if isinstance(edit, Replace)]
    assert done.errors.keys() == {layer for layer, _ in blocks}
    assert all(0 < error < 2 for error in done.errors.values())
    for struck in (*plan.edits[:2], *plan.edits[5:]):
        assert torch.equal(done.model.get_submodule(struck.name).weight, net.get_submodule(struck.name).weight)


def test_another_rank_and_another_block_by_hand_are_honoured() -> None:
    net, plan = made("a limit by errors")
    assert isinstance(plan.edits[0], Replace)
    for block in ("cp:r=8", "dw-pw:r=3", "spatial:r=8"):
        changed = replace(plan.edits[0], block=block)
        done = cs.rewrite(net, replace(plan, edits=(changed, *plan.edits[1:])), data=X)
        first = done.plan.edits[0]
        assert isinstance(first, Replace)
        assert (first.block, first.reason) == (block, "changed by hand")
        assert (first.quality, first.output_error) == (None, None), "what was found of another block"
        assert first.error is not None
        assert (done.plan.new.params, done.plan.new.macs) == torch_totals(done.model, X)
        assert done.plan.edits[1].reason == plan.edits[1].reason


def test_a_layer_added_and_more_copies_by_hand_are_honoured() -> None:
    net, plan = made("organized")
    more = tuple(replace(e, copies=e.copies + 1) if isinstance(e, Repeat) else e for e in plan.edits)
    added = replace(plan, edits=(*more, Replace("layer3.0.conv2", "cp:r=16")))
    done = cs.rewrite(net, cs.Plan.from_json(added.to_json()), method="none")
    assert (done.plan.new.params, done.plan.new.macs) == torch_totals(done.model, X)
    assert done.plan.edits[-1].macs != (0, 0)
    assert done.plan.new.blocks == cs.organize(done.model, X[:1]).base.blocks


class Shared(nn.Module):
    """One convolution called twice, one that ends nowhere, one whose weight another holds too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice, self.idle = (nn.Conv2d(c, 8, 3, padding=1) for c in (3, 8, 8))
        self.down, self.tied = nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.other = deepcopy(self.tied)
        self.other.weight = self.tied.weight
        self.never = nn.Conv2d(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(self.stem(x)))
        self.idle(x)
        return self.other(self.tied(self.down(x)))


UNDOABLE: dict[str, tuple[tuple[Edit, ...], str]] = {
    "called twice": ((Replace("twice", "dw-pw"),), r"^twice cannot be replaced: it is called 2 times; take that edit"),
    "read by nothing": ((Replace("idle", "dw-pw"),), r"^idle cannot be replaced: nothing reads what it answers"),
    "a shared weight": ((Replace("tied", "dw-pw"),), r"^tied cannot be replaced: it shares its weights"),
    "never called": ((Replace("never", "dw-pw"),), r"^never cannot be replaced: nothing calls it"),
    "no layer": ((Replace("gone", "dw-pw"),), r"^The plan edits 'gone', which this model does not have"),
    "a block that does not fit": ((Replace("down", "dw-pw:r=99"),), r"^down: dw-pw:r=99 cannot replace this"),
    "no block": ((Replace("down", "nonsense"),), r"^down: Unknown block 'nonsense'"),
    "a unit that shrinks maps": ((Remove(("down",)),), r"^down cannot be removed: its shape changes from 8x16x16 to"),
    "a unit that grows channels": ((Remove(("stem",)),), r"^stem cannot be removed: its shape changes from 3x16"),
    "copies on another map": (
        (Repeat(("down",), 1),),
        r"^down cannot be repeated: its shape .*, its map changes; take",
    ),
    "a unit that never runs": ((Remove(("never",)),), r"^never cannot be removed: it makes no call"),
    "one moved twice": (
        (Repeat(("twice",), 1), Remove(("twice",))),
        r"^twice cannot be repeated: .*called 2 times|^twice is moved together",
    ),
}


@pytest.mark.parametrize(("edits", "sentence"), UNDOABLE.values(), ids=UNDOABLE)
def test_what_cannot_be_is_refused_by_the_name_of_the_edit(edits: tuple[Any, ...], sentence: str) -> None:
    net = Shared().eval()
    plan = replace(cs.decompose(net, X[:1]), edits=edits)
    with pytest.raises(cs.ConvsmithError, match=sentence) as caught:
        cs.apply(net, plan)
    assert "\n" not in str(caught.value)
