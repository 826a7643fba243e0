"""Groups of channels: what is cut together in nets of every kind, and what stays, with the reason."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from convsmith.structure.channel_groups import ChannelGroup, find_groups
from families import FAMILIES, Net, conv
from nets import graph_of


def groups_of(net: nn.Module) -> dict[str, ChannelGroup]:
    return {" ".join(group.name): group for group in find_groups(graph_of(net, 3, 8, 8))[0]}


# Per family: by the layers that make them, how many channels, how many sets of them, and whether they are hidden.
EXPECTED = {
    "vgg": {"0.0": (16, 16, True), "2.0": (16, 16, True), "5": (32, 32, True)},
    "residual": {"stem.0 body.inside.1.0": (16, 16, False), "body.inside.0.0": (24, 24, True)},
    "inverted": {
        "stem.0 body.inside.3": (16, 16, False), "body.inside.0.0": (48, 48, True),
        "body.inside.2.reduce": (8, 8, True),
    },
    "dense": {"stem.0": (16, 16, True), "body.first.0": (8, 8, True), "body.second.0": (8, 8, True)},
    "cross stage": {
        "stem.0": (16, 16, True), "body.enter.0 body.inside.inside.1.0": (16, 8, False),
        "body.inside.inside.0.0": (8, 8, True), "body.leave.0": (16, 16, True),
    },
    "groups, few": {"stem.0": (16, 16, True), "body.0.0": (32, 8, True), "body.1.0": (24, 6, True),
                    "body.2.0": (16, 16, True)},
    "groups, many": {"stem.0": (16, 16, True), "body.0.0": (32, 16, True), "body.2.0": (16, 16, True)},
    "multiplied depthwise": {"stem.0": (16, 16, True), "body.1.0": (16, 16, True)},
    "group norm": {"stem.0": (16, 16, True), "body.0": (24, 6, True), "body.3.0": (16, 16, True)},
    "pixels": {"stem.0": (16, 16, True), "body.wide": (32, 8, True), "body.narrow.0": (16, 16, True)},
    "gated": {"stem.0": (16, 16, True), "body.both": (12, 12, True), "body.last": (16, 16, True)},
    "scaled": {"body.wide": (64, 64, True)},
    "neighbours": {"body.inside.0.0": (24, 24, True)},
    "transposed": {"stem.0": (16, 16, True), "body.0": (24, 24, True), "body.2.0": (16, 16, True)},
}  # fmt: skip


@pytest.mark.parametrize("family", EXPECTED)
def test_groups_are_what_the_net_ties_together(family: str) -> None:
    found = groups_of(FAMILIES[family]())
    assert {name: (g.width, len(g.atoms), g.hidden) for name, g in found.items()} == EXPECTED[family]


def test_a_group_tells_what_makes_changes_and_reads_its_channels() -> None:
    group = groups_of(FAMILIES["inverted"]())["body.inside.0.0"]
    assert [(part.tensor, part.dim, part.gate) for part in group.producers] == [
        ("body.inside.0.0.weight", 0, False), ("body.inside.2.expand.weight", 0, True),
    ]  # fmt: skip
    assert [(part.tensor, part.dim) for part in group.consumers] == [
        ("body.inside.2.reduce.weight", 1), ("body.inside.3.weight", 1),
    ]  # fmt: skip
    assert {part.module for part in group.between} == {f"body.inside.{i}" for i in ("0.1", "1.0", "1.1", "2.expand")}
    assert all(part.channels == tuple(range(48)) for part in group.parts)


def test_a_linear_layer_behind_a_flattened_map_has_columns_for_each_place() -> None:
    group = groups_of(FAMILIES["vgg"]())["2.0"]
    (columns,) = group.consumers
    assert columns.tensor == "5.weight"
    assert columns.channels == tuple(channel for channel in range(16) for _ in range(2 * 2))


def test_a_layer_that_reads_two_groups_tells_their_columns_apart() -> None:
    groups = groups_of(FAMILIES["dense"]())
    columns = {name: next(p for p in group.consumers if p.tensor == "body.second.0.weight").channels
               for name, group in groups.items() if name != "body.second.0"}  # fmt: skip
    assert columns == {"stem.0": (*range(16), *[-1] * 8), "body.first.0": (*[-1] * 16, *range(8))}


# --- what stays ---


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = conv(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(self.layer(x))
        return out


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(16, 16, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(x, self.kernel)


def shared() -> nn.Module:
    first, second = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)
    second.weight = first.weight
    return nn.Sequential(first, second)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "the output": (lambda: nn.Sequential(conv(3, 8)), "0.0", "its channels are those of the model's output"),
    "called twice": (lambda: Net(Twice()), "stem.0", "body.layer.0.weight is read by 2 calls"),
    "shared": (lambda: Net(shared()), "body.0", "read by 2 calls"),
    "functional": (lambda: Net(Functional()), "stem.0", "its weight body.kernel is given to a function"),
    "mixed": (lambda: Net(Function(lambda x: x - x.mean(1, keepdim=True))), "stem.0", "mean of body mixes them"),
    "softmax": (lambda: Net(Function(lambda x: x.softmax(1))), "stem.0", "softmax of body mixes them"),
    "layer norm": (lambda: FAMILIES["scaled"](), "stem.0", "layer_norm of body.norm mixes them"),
    "one group of all": (lambda: Net(nn.GroupNorm(1, 16)), "stem.0", "takes statistics over all of a group"),
    "neighbours": (lambda: FAMILIES["neighbours"](), "stem.0", "slides over them"),
    "unequal parts": (lambda: Net(Function(lambda x: torch.cat(x.split([4, 12], 1), 1))), "stem.0", "no equal parts"),
    "no rule": (lambda: Net(Function(lambda x: x.sort(1)[0])), "stem.0", "sort of body may mix them"),
    "multiplied with all": (
        lambda: Net(Function(lambda x: x + (x.mean((2, 3))[:, None] @ x.flatten(2)).view(1, 1, 8, 8))),
        "stem.0", "matmul of body may mix them",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_stays_is_refused_with_its_reason(case: str) -> None:
    build, layer, reason = REFUSED[case]
    groups, refusals = find_groups(graph_of(build(), 3, 8, 8))
    assert not any(layer in group.name for group in groups)
    assert any(refusal.layer == layer and reason in refusal.reason for refusal in refusals), refusals
