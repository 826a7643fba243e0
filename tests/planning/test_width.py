"""Plans of narrower layers: uniform widths, plans by hand, and mixes with every other edit, whose costs add up."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.plan import Edit, Narrow, Plan, Remove, Repeat, Replace
from convsmith.testing.oracles import torch_macs
from families import FAMILIES, CrossStage, Net, Residual, conv
from nets import graph_of


def chain() -> nn.Module:
    return nn.Sequential(conv(3, 16), conv(16, 24), conv(24, 24), nn.Conv2d(24, 8, 3))


def plan_by_hand(net: nn.Module, *edits: Edit) -> Plan:
    empty = cs.narrow(graph_of(net, 3, 8, 8), width=0.5)
    return replace(empty, edits=edits)


def done(net: nn.Module, *edits: Edit) -> tuple[nn.Module, Plan]:
    """What a plan by hand makes; its totals are torch's."""
    applied = cs.rewrite(net, plan_by_hand(net, *edits))
    assert applied.plan.new.macs == torch_macs(applied.model.eval(), torch.zeros(1, 3, 8, 8))
    assert applied.plan.new.params == sum(parameter.numel() for parameter in applied.model.parameters())
    return applied.model, applied.plan


@pytest.mark.parametrize("family", FAMILIES)
def test_half_of_every_hidden_group_and_what_is_promised_is_kept(family: str) -> None:
    net = FAMILIES[family]().eval()
    plan = cs.narrow(graph_of(net, 3, 8, 8), width=0.5)
    assert all(isinstance(edit, Narrow) and edit.macs[1] < edit.macs[0] for edit in plan.edits)
    applied = cs.rewrite(net, plan)
    assert applied.plan.new == plan.new
    assert plan.new.macs == torch_macs(applied.model, torch.zeros(1, 3, 8, 8))
    assert Plan.from_json(applied.plan.to_json()) == applied.plan


def test_widths_are_multiples_of_eight_where_channels_go_one_by_one() -> None:
    net = nn.Sequential(conv(3, 44), conv(44, 12), conv(12, 8), nn.Conv2d(8, 4, 1))
    plan = cs.narrow(net, torch.zeros(1, 3, 8, 8), width=0.5)
    assert [(edit.name, edit.block) for edit in plan.edits] == [("0.0", "narrow:24"), ("1.0", "narrow:8")]
    assert [(r.layer, r.reason) for r in plan.refusals] == [
        ("3", "its channels are those of the model's output"), ("2.0", "of its 8 channels none can go"),
    ]  # fmt: skip


def test_narrow_edits_that_share_a_layer_add_up() -> None:
    net = chain()
    _, plan = done(net, Narrow(("0.0",), 8), Narrow(("1.0",), 6), Narrow(("2.0",), 12))
    (_, first), (second, _) = plan.edits[0].macs, plan.edits[1].macs
    whole = 16 * 24 * 9 * 64
    assert first == 8 * 3 * 9 * 64 + whole // 2, "a layer that reads half"
    assert second == whole // 2 + 24 * 24 * 9 * 64, "what the edit before left of it"


def test_edits_of_every_kind_in_one_plan_add_up() -> None:
    body = nn.Sequential(*[Residual(nn.Sequential(conv(16, 16), conv(16, 16))) for _ in range(3)])
    net = Net(body)
    new, plan = done(
        net, Repeat(("body.0",), 2), Replace("body.0.inside.1.0", "dw-pw"), Narrow(("body.0.inside.0.0",), 5),
        Remove(("body.2",)), Narrow(("stem.0", *[f"body.{i}.inside.1.0" for i in range(3)]), 12),
    )  # fmt: skip
    assert len(new.body) == 4
    assert [edit.kind for edit in plan.edits] == ["repeat", "replace", "narrow", "remove", "narrow"]
    assert new.head.in_features == 12


def test_without_data_the_channels_of_the_largest_norms_stay() -> None:
    net = chain()
    with torch.no_grad():
        net[0][0].weight[[2, 7]] *= 100
        net[1][0].weight[:, 5] *= 100
        net[1][0].weight[:, 7] *= 0
    _, plan = done(net, Narrow(("0.0",), 2))
    assert plan.edits[0].kept == (2, 5)
    new, plan = done(net, Narrow(("0.0",), 2, kept=(1, 9)))
    assert plan.edits[0].kept == (1, 9)
    torch.testing.assert_close(new[1][0].weight, net[1][0].weight[:, [1, 9]])


def test_the_model_itself_stays() -> None:
    net = chain()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    done(net, Narrow(("0.0",), 8), Narrow(("1.0",), 8))
    torch.testing.assert_close(dict(net.state_dict()), before)
    assert net[0][0].out_channels == 16


# --- refusals ---


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ([Narrow(("nowhere",), 8)], "nowhere is no group of channels"),
        ([Narrow(("head",), 8)], "head cannot be narrowed: head: its channels are those of the model's output"),
        ([Narrow(("body.enter.0",), 8)], r"its group is body.enter.0 \+ body.inside.inside.1.0"),
        ([Narrow(("body.enter.0", "body.inside.inside.1.0"), 7)], r"cannot be narrowed to 7 of 16 .* is 8"),
        ([Narrow(("stem.0",), 8), Narrow(("stem.0",), 4)], "stem.0 is narrowed twice"),
        ([Narrow(("stem.0",), 8, kept=(0, 1))], "keeps 2 channels for a width of 8"),
        ([Narrow(("stem.0",), 2, kept=(0, 16))], "has channels 0 to 15"),
    ],
)  # fmt: skip
def test_edits_that_cannot_be_are_refused_by_name(edits: list[Edit], said: str) -> None:
    net = Net(CrossStage())
    with pytest.raises(cs.PlanError, match=said):
        cs.apply(net, plan_by_hand(net, *edits))


def test_statistics_of_a_whole_layer_do_not_fit_a_narrowed_one() -> None:
    net = chain().eval()
    plan = plan_by_hand(net, Narrow(("0.0",), 8), Replace("1.0", "cp:R=4"))
    statistics = cs.calibrate(net, torch.randn(4, 3, 8, 8), ["1.0"])
    with pytest.raises(cs.PlanError, match=r"1.0 is replaced and narrowed too"):
        cs.apply(net, plan, statistics=statistics)


@pytest.mark.parametrize("share", [0.0, 1.0, float("nan"), 2.0])
def test_a_share_that_is_none(share: float) -> None:
    with pytest.raises(cs.PlanError, match="give the share of channels that is left"):
        cs.narrow(graph_of(chain(), 3, 8, 8), width=share)
