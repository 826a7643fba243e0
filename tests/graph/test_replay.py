"""Replay: the calls of a captured net, run again on real batches, answer exactly what the net answers."""

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision import models

import convsmith as cs
from convsmith.errors import ConvsmithError
from convsmith.graph.capture import capture
from convsmith.graph.replay import Replay

SHAPE = (3, 64, 64)


@pytest.mark.parametrize(
    "name",
    ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "timm:resnest14d", "timm:convnext_atto"],
)
def test_a_whole_run_is_the_model_itself(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name[5:]) if name.startswith("timm:") else models.get_model(name)
    model.eval()
    x = torch.rand(3, *SHAPE)
    replay = Replay(model, capture(model, x, batch=3))
    alive = replay.start(x.clone())
    replay.run(alive, 0, len(replay.graph.nodes))
    assert list(alive) == list(replay.graph.outputs), "what no call reads any more is let go of"
    with torch.no_grad():
        assert torch.equal(alive[replay.graph.outputs[0]], model(x))


def test_a_module_in_a_calls_place_changes_all_behind_it() -> None:
    model = cs.build("vgg11", input=(3, 32, 32), classes=10).eval()
    x = torch.rand(2, 3, 32, 32)
    graph = capture(model, x, batch=2)
    node = [node for node in graph.nodes if node.kind == "conv"][3]
    other = nn.Conv2d(*reversed(node.call["weight"].shape[:2]), 3, padding=1, bias=False)
    replay, place = Replay(model, graph), graph.nodes.index(node)
    alive = replay.start(x)
    replay.run(alive, 0, place)
    replay.run(alive, place, len(graph.nodes), {node.name: other})
    model.set_submodule(node.module, other)
    with torch.no_grad():
        torch.testing.assert_close(alive[graph.outputs[0]], model(x))


class Writes(nn.Module):
    def __init__(self, part: bool) -> None:
        super().__init__()
        self.part = part
        self.register_buffer("table", torch.zeros(1, 3, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = x + 1
        if self.part:
            x[:, :1].mul_(2)
            return x * 3
        return self.table.copy_(x) * 3


def test_a_write_through_a_view_is_in_the_memory() -> None:
    model, x = Writes(part=True), torch.rand(1, 3, 8, 8)
    replay = Replay(model, capture(model, x))
    alive = replay.start(x)
    replay.run(alive, 0, len(replay.graph.nodes))
    assert torch.equal(alive[replay.graph.outputs[0]], model(x))


def test_a_write_into_the_models_own_table_is_refused() -> None:
    model = Writes(part=False)
    with pytest.raises(ConvsmithError, match="writes into a table of its own"):
        Replay(model, capture(model, torch.rand(1, 3, 8, 8)))
