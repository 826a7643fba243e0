"""Layers of real nets against autograd, at small inputs."""

from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import GatherExcite, SqueezeExcite
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import SqueezeExcitation

import convsmith as cs
from convsmith.testing.oracles import disagreements, transparent


def from_timm(name: str) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, pretrained=False)


SMALL, MIDDLE = (3, 32, 32), (3, 64, 64)
REAL: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[str]]] = {
    "vgg11": (lambda: cs.build("vgg11", input=SMALL), SMALL, ["features.8", "features.25"]),
    "resnet20": (lambda: cs.build("resnet20"), SMALL, ["layer1.1.conv2", "layer2.0.conv2", "layer3.0.conv1"]),
    "mobilenet": (lambda: cs.build("mobilenet", input=SMALL), SMALL, ["layer2.1", "layer3.0"]),
    "shufflenet": (models.shufflenet_v2_x0_5, MIDDLE, ["stage2.1.branch2.0", "stage2.3.branch2.5"]),
    "mobilenet_v2": (models.mobilenet_v2, MIDDLE, ["features.4.conv.1.0", "features.7.conv.2"]),
    "squeezenet": (models.squeezenet1_1, MIDDLE, ["features.4.expand3x3", "features.7.expand1x1"]),
    "densenet": (models.densenet121, MIDDLE, ["features.denseblock1.denselayer4.conv2"]),
    "resnext": (models.resnext50_32x4d, MIDDLE, ["layer1.0.conv2", "layer2.0.conv2"]),
    "googlenet": (
        lambda: models.googlenet(aux_logits=False, init_weights=False),
        MIDDLE,
        ["inception3b", "inception4a"],
    ),
    "convnext": (from_timm("convnext_atto"), MIDDLE, ["stages.0.blocks.1", "stages.1.blocks.0.conv_dw"]),
    "hrnet": (from_timm("hrnet_w18_small"), MIDDLE, ["stage2.0.fuse_layers.0.1", "stage3.0.fuse_layers.1.0.0"]),
    "res2net": (from_timm("res2net50_26w_4s"), MIDDLE, ["layer1.1", "layer2.0.convs.2"]),
    "repvgg": (from_timm("repvgg_a0"), MIDDLE, ["stages.0.1", "stages.1.2"]),
    "efficientnet": (from_timm("tf_efficientnet_lite0"), MIDDLE, ["blocks.1.1", "blocks.2.1.conv_dw"]),
    "dla": (from_timm("dla34"), MIDDLE, ["level2.root", "level3.tree2"]),
    "resnetv2": (from_timm("resnetv2_50d"), MIDDLE, ["stages.0.blocks.1", "stages.1.blocks.0.conv2"]),
    "regnet": (from_timm("regnety_002"), MIDDLE, ["s2.b1.conv2", "s3.b1"]),
    "fcn": (lambda: models.segmentation.fcn_resnet50(weights_backbone=None), SMALL, ["backbone.layer2.0.conv2"]),
}


class UpTo(nn.Module):
    """A net as far as the last call of one of its modules."""

    def __init__(self, net: nn.Module, path: str) -> None:
        super().__init__()
        self.net, self.path = net, path

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor | list[Tensor]] = []
        hook = self.net.get_submodule(self.path).register_forward_hook(lambda module, args, out: kept.append(out))
        self.net(x)
        hook.remove()
        return kept[-1] if isinstance(kept[-1], Tensor) else kept[-1][0]


def judged(net: nn.Module) -> nn.Module:
    """The net with what hides paths from gradients taken out, and gates held constant."""
    for module in net.modules():
        if isinstance(module, nn.MaxPool2d):  # averages see the same, without hiding what is not largest
            module.forward = _as_average(module)  # type: ignore[method-assign]
        if isinstance(module, nn.ReLU6):  # positive weights drive it to its flat end
            module.forward = F.relu  # type: ignore[method-assign]
        if isinstance(module, SqueezeExcite | SqueezeExcitation | GatherExcite):
            module.forward = _held(module)  # type: ignore[method-assign]
    return transparent(net)


def _as_average(pool: nn.MaxPool2d) -> Callable[[Tensor], Tensor]:
    return lambda x: F.avg_pool2d(x, pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)


def _held(gate: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: x * x.mean((2, 3), keepdim=True).sigmoid().detach()


@pytest.mark.parametrize("name", REAL)
def test_layers_of_real_nets_see_what_autograd_finds(name: str) -> None:
    build, shape, paths = REAL[name]
    torch.manual_seed(0)
    net = judged(build())
    graph = cs.capture(net, torch.zeros(1, *shape, dtype=torch.float64))
    assert not graph.unknown_ops
    reaches = graph.reaches()
    for path in paths:
        last = [node for node in graph.nodes if node.module == path or node.module.startswith(f"{path}.")][-1]
        assert list(disagreements(UpTo(net, path), shape, reaches[last.name], most=3, draws=1)) == []
