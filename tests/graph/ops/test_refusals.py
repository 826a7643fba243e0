"""What is not known is said, and nothing behind it is guessed."""

from collections.abc import Callable

import pytest
import torch
from specimens import MAP, Call, conv
from torch import Tensor, nn

import convsmith as cs

aten = torch.ops.aten


@pytest.mark.parametrize(
    ("op", "layer"),
    [
        ("aten.renorm.default", lambda x: x.renorm(2, 1, 1.0)),
        ("aten.cummax.default", lambda x: x.cummax(2)[0]),
        ("aten.einsum.default", lambda x: torch.einsum("bccw->bcw", x[:, :, :4]).unsqueeze(3)),
        ("aten.conv2d.default", lambda x: torch.conv2d(torch.ones(1, 4, 9, 9), x.mean((0, 2, 3)).expand(4, 4, 3, 4))),
    ],
    ids=["no rule", "no rule, several outputs", "a diagonal", "a kernel of the input over a constant"],
)
def test_an_op_without_an_answer_is_named_and_nothing_behind_it_is_guessed(
    op: str, layer: Callable[[Tensor], Tensor]
) -> None:
    net = nn.Sequential(conv(padding=1), Call(layer), conv(padding=1), nn.ReLU())
    graph = cs.capture(net, torch.zeros(1, *MAP))
    assert graph.unknown_ops == {op: 1}
    behind = [node.name for node in graph.nodes if node.module in ("2", "3")]
    assert behind
    assert not set(behind) & set(graph.reaches())
    scores = cs.score(graph)
    assert [layer.reach is None for layer in scores.layers][-1]
    assert graph.macs == sum(layer.macs for layer in scores.layers) > 0, "costs are still counted"
    plan = cs.decompose(graph, block="dw-pw")
    assert [edit.layer for edit in plan.edits] == ["0"]  # type: ignore[union-attr]
