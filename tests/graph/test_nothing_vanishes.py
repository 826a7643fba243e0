"""Nothing vanishes in silence: every module that computed is in the graph, in an edit or in a refusal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torchvision import models

import convsmith as cs
from convsmith.graph.answers import answered
from convsmith.graph.capture import capture
from convsmith.testing.oracles import torch_macs

X = torch.rand(1, 3, 64, 64)


class Strange(nn.Module):
    """Two convolutions, a table of its own in between, and what a test does with both."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.table, self.then = nn.Conv2d(1, 8, 1), forward

    def forward(self, x: Tensor) -> Any:
        return self.then(self, x)


def by_slices(net: Strange, x: Tensor) -> Tensor:
    y = net.a(x)
    new = torch.zeros(y.shape)
    new[:, :4], new[:, 4:] = y[:, 4:], y[:, :4]
    return net.b(new)


def by_another_type(net: Strange, x: Tensor) -> Tensor:
    y = net.a(x)
    y.view(torch.int32)[..., :2].zero_()
    return net.b(y)


def by_an_output(net: Strange, x: Tensor) -> Tensor:
    out = torch.zeros(1, 8, 64, 64)
    torch.add(net.a(x), 1, out=out)
    return net.b(out)


def by_numpy(net: Strange, x: Tensor) -> Tensor:
    return net.b(torch.from_numpy(net.a(x).numpy() * 2))


def by_a_list(net: Strange, x: Tensor) -> Tensor:
    means = torch.tensor(net.a(x).mean((2, 3)).tolist())
    return net.b(means[:, :, None, None].expand(1, 8, 4, 4))


def by_a_table(net: Strange, x: Tensor) -> Tensor:
    line = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    return net.b(net.a(x) + net.table(line))


def by_a_mask(net: Strange, x: Tensor) -> Tensor:
    y = net.a(x)
    return net.b(y[:, :, y.mean((0, 1, 3)) > -9])


def answering_a_number(net: Strange, x: Tensor) -> float:
    return net.b(net.a(x)).mean().item()


def answering_a_side(net: Strange, x: Tensor) -> dict[str, Any]:
    y = net.a(x)
    return {"main": [net.b(y)], "side": (y, "name")}


STRANGE: dict[str, Callable[[], nn.Module]] = {
    forward.__name__: (lambda forward=forward: Strange(forward))
    for forward in (
        by_slices, by_another_type, by_an_output, by_numpy, by_a_list, by_a_table, by_a_mask, answering_a_number,
        answering_a_side,
    )
}  # fmt: skip
NETS: dict[str, Callable[[], nn.Module]] = STRANGE | {
    "zoo:shufflenetv2-0.5": lambda: cs.build("shufflenetv2-0.5", input=(3, 64, 64)),
    "zoo:resnet20": lambda: cs.build("resnet20", input=(3, 64, 64)),
    "googlenet": lambda: models.googlenet(aux_logits=True, init_weights=False),
    "mnasnet": models.mnasnet0_5,
    "lraspp": lambda: models.segmentation.lraspp_mobilenet_v3_large(weights_backbone=None),
    "quantizable": lambda: models.quantization.mobilenet_v2(quantize=False),
    "features": lambda: timm.create_model("resnet18", features_only=True),
    **{
        f"timm:{name}": (lambda name=name: timm.create_model(name))
        for name in ("ghostnet_050", "convnext_atto", "efficientvit_b0", "nf_resnet26", "skresnet18", "hrnet_w18_small")
    },
}


@contextmanager
def watched(net: nn.Module, ran: set[str]) -> Iterator[None]:
    """Which modules with parameters of their own ran."""
    own = [(path, m) for path, m in net.named_modules() if any(True for _ in m.parameters(recurse=False))]
    handles = [module.register_forward_hook(lambda *_, path=path: ran.add(path)) for path, module in own]
    yield
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("name", NETS)
def test_every_module_that_computed_is_told_and_every_output_is_found(name: str) -> None:
    net, ran = NETS[name]().eval(), set[str]()
    with watched(net, ran), torch.no_grad():
        answer = answered(net(X))
    graph = capture(net, X)
    modules = dict(net.named_modules())
    assert ran <= {node.module for node in graph.nodes} | graph.tables
    assert graph.outputs
    found = [graph.shapes[output] for output in graph.outputs]
    assert all(tuple(x.shape) in found for x in answer)
    assert len(found) >= len(answer)
    plan = cs.decompose(graph, block="dw-pw")
    told = {edit.layer for edit in plan.edits} | {refusal.layer for refusal in plan.refusals}
    assert {path for path in ran if isinstance(modules[path], _ConvNd)} <= told
    assert graph.macs == torch_macs(net, X)


def test_a_convolution_on_a_table_is_refused_with_the_reason() -> None:
    plan = cs.decompose(capture(Strange(by_a_table), X), block="dw-pw")
    reasons = {refusal.layer: refusal.reason for refusal in plan.refusals}
    assert reasons["table"] == "it works on a table of the net's own, made anew in every run, and not on the input"
