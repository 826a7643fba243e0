"""The tape: constants keep their values, views are known, and a model is left as it was."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import convsmith as cs
from convsmith.errors import ConvsmithError
from convsmith.graph.aliases import Aliases
from convsmith.testing.oracles import torch_macs

Forward = Callable[[nn.Module, Tensor], Tensor]


class Net(nn.Module):
    """A convolution, and a forward of the test's own behind it."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.conv, self.then = nn.Conv2d(4, 4, 3, padding=1), forward

    def forward(self, image: Tensor) -> Tensor:
        return self.then(self, self.conv(image))


def captured(forward: Forward) -> cs.Graph:
    return cs.capture(Net(forward), torch.zeros(1, 4, 8, 8))


def ops(graph: cs.Graph) -> list[str]:
    return [node.call.op.removeprefix("aten.").partition(".")[0] for node in graph.nodes]


def test_tables_made_in_passing_keep_their_values() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        table = torch.arange(x.shape[-1], device=x.device)
        return x.roll(int(table[2]), 3) if bool((table > 2).any()) else x

    graph = captured(forward)
    assert ops(graph) == ["conv2d", "roll"]
    assert graph.nodes[1].call["shifts"] == [2]


def test_what_has_only_a_tensors_shape_sees_nothing_of_it() -> None:
    graph = captured(lambda net, x: torch.cat([torch.zeros_like(x), x.new_ones(1, 1, 8, 8), x], 1))
    assert ops(graph) == ["conv2d", "cat"]
    assert [x.own for x in graph.nodes[1].call.operands] == [True, True, False]


def test_a_weight_worked_out_in_passing_has_its_parameters() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, net.extra / net.extra.norm())

    net = Net(forward)
    net.extra = nn.Parameter(torch.ones(2, 4, 1, 1))
    graph = cs.capture(net, torch.zeros(1, 4, 8, 8))
    assert ops(graph) == ["conv2d", "conv2d"]
    assert [node.params for node in graph.nodes] == [4 * 4 * 9 + 4, 8]


def test_products_that_make_a_table_in_every_run_are_counted_aside() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return x + net.mix(torch.linspace(0, 1, 8, device=x.device)[:, None]).T.view(1, 4, 1, 8)

    net = Net(forward)
    net.mix = nn.Linear(1, 4)
    graph, x = cs.capture(net, torch.zeros(1, 4, 8, 8)), torch.zeros(1, 4, 8, 8)
    assert graph.aside == 32
    assert graph.macs == torch_macs(net, x) == cs.score(graph).macs


def half_in_place(net: nn.Module, x: Tensor) -> Tensor:
    first, second = x.chunk(2, 1)
    first.relu_()
    return torch.cat([first, second], 1)


def by_data(net: nn.Module, x: Tensor) -> Tensor:
    return net.conv(x.data)


@pytest.mark.parametrize("forward", [half_in_place, by_data])
def test_views_that_nothing_was_written_into_are_known(forward: Forward) -> None:
    assert not captured(forward).unknown_ops


def test_attributes_and_buffers_that_forward_sets_are_taken_back() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        net.kept = x
        net.count = net.count + 1
        net.mean.mul_(0.9).add_(1)
        net.seen.append(x.shape)
        net.named["last"] = x
        net.conv.stride = (1, 1)
        return x

    net = Net(forward)
    net.register_buffer("count", torch.zeros(()))
    net.register_buffer("mean", torch.zeros(4))
    net.seen, net.named = [], {}
    stride = net.conv.stride
    cs.capture(net, torch.zeros(1, 4, 8, 8))
    assert "kept" not in vars(net)
    assert net.count == 0
    assert not net.mean.any()
    assert (net.seen, net.named) == ([], {})
    assert net.conv.stride is stride
    assert not net.conv._forward_hooks
    assert not net.conv._forward_pre_hooks


def test_calls_of_a_child_in_the_middle_return_to_the_parent() -> None:
    graph = captured(lambda net, x: net.conv(x.relu()).relu())
    assert [node.module for node in graph.nodes] == ["conv", "", "conv", ""]


def test_an_output_taken_from_several_belongs_to_the_call_that_made_it() -> None:
    class Split(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return x.split(2, 1)

    net = nn.Sequential(Split())
    graph = cs.capture(net, torch.zeros(1, 4, 8, 8))
    assert [(node.call.op, node.module) for node in graph.nodes][1:] == [("getitem", "0")] * 2
    assert len(graph.outputs) == 2


def test_attention_is_seen_in_its_plain_form() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        rows = x.flatten(2).transpose(1, 2)
        return net.mix(rows, rows, rows, need_weights=False)[0]

    net = Net(forward)
    net.mix = nn.MultiheadAttention(4, 2, batch_first=True)
    before = torch.backends.mha.get_fastpath_enabled()
    graph = cs.capture(net, torch.zeros(1, 4, 8, 8))
    assert "scaled_dot_product_attention" in ops(graph)
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_a_captured_model_still_learns() -> None:
    net = Net(lambda net, x: x.relu())
    cs.capture(net, torch.zeros(1, 4, 8, 8))
    net(torch.rand(1, 4, 8, 8)).sum().backward()
    assert net.conv.weight.grad is not None


def test_torchscript_is_refused_with_the_reason() -> None:
    with pytest.raises(ConvsmithError, match="TorchScript"):
        cs.capture(ScriptedStandIn(), torch.zeros(1, 4, 8, 8))


class ScriptedStandIn(torch.jit.ScriptModule):
    """What torch.jit.script returns is of this class; scripting itself warns that it is deprecated."""


def test_aliases_share_an_element() -> None:
    x, aliases = torch.zeros(4, 6), Aliases()
    views = {"whole": x, "left": x[:, :3], "even": x[:, ::2], "odd": x[:, 1::2], "none": x[:0]}
    for view in views.values():
        aliases.add(view)
        aliases.add(view)
    named = {id(view): name for name, view in views.items()}
    found = {name: {named[id(other)] for other in aliases.overlapping(view)} for name, view in views.items()}
    assert found == {
        "whole": {"left", "even", "odd"}, "left": {"whole", "even", "odd"}, "even": {"whole", "left"},
        "odd": {"whole", "left"}, "none": set(),
    }  # fmt: skip


def test_shapes_are_worked_out_once_for_nets_that_make_alike_calls() -> None:
    asked = []

    @torch.library.custom_op("convsmith_test::halves", mutates_args=())
    def halves(x: Tensor, factor: float) -> Tensor:
        return factor * x[..., ::2]

    @halves.register_fake
    def _(x: Tensor, factor: float) -> Tensor:
        asked.append((tuple(x.shape), factor))
        return x.new_empty(*x.shape[:-1], (x.shape[-1] + 1) // 2)

    def shape(size: int, factor: float) -> tuple[int, ...]:
        graph = cs.capture(Net(lambda net, x: halves(x, factor)), torch.zeros(1, 4, 6, size))
        return graph.nodes[-1].call.out

    assert [shape(8, 2.0), shape(8, 2.0), shape(9, 2.0), shape(9, 3.0)] == [(1, 4, 6, 4)] * 2 + [(1, 4, 6, 5)] * 2
    assert asked == [((1, 4, 6, 8), 2.0), ((1, 4, 6, 9), 2.0), ((1, 4, 6, 9), 3.0)]


def test_captures_of_alike_nets_have_tensors_of_their_own() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        a, b = x.relu(), x.relu()
        a[:, :2].add_(1)  # written through a view: only `a` changes
        return torch.cat([a, b], 1)

    first, again = captured(forward), captured(forward)
    assert ops(first) == ops(again)
    assert first.unknown_ops == again.unknown_ops == {}
    assert [node.known for node in first.nodes] == [node.known for node in again.nodes]
