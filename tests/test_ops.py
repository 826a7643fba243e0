"""Every rule against autograd: a specimen per op, random nets, and real ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision import models

import convsmith as cs
from convsmith.blocks import RollingPointwise
from convsmith.call import RULES
from convsmith.kernels import DimensionWise
from oracles import disagreements, seen_by_reach, torch_macs, transparent

# torch, of an even kernel under `same`, which pads one side more than the other
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

aten = torch.ops.aten
MAP = (4, 7, 6)  # the source of most specimens: channels, height, width


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Join(nn.Module):
    """Two branches and what joins them."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor], left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.join, self.left, self.right = join, left, right

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.left(x), self.right(x))


def conv(inputs: int = 4, outputs: int = 4, kernel: Any = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, **options)


def before(function: Callable[..., Tensor], kernel: Any = 3) -> nn.Sequential:
    """A grouped convolution, so that elements differ in what they see, then a function."""
    return nn.Sequential(conv(kernel=kernel, padding=1, groups=2), Call(function))


GATE = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(kernel=1), nn.Sigmoid(), Call(torch.detach))
SAME = nn.Identity()

SPECIMENS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    # convolutions and products
    "conv": (conv(), MAP),
    "conv padded": (conv(padding=1), MAP),
    "conv strided": (conv(stride=2, padding=1), MAP),
    "conv asymmetric": (conv(kernel=(1, 5), padding=(0, 2), stride=(1, 2)), MAP),
    "conv dilated": (conv(dilation=2, padding=2), MAP),
    "conv even kernel": (conv(kernel=2, stride=2), MAP),
    "conv even kernel, same": (conv(kernel=4, padding="same"), MAP),
    "conv valid": (conv(padding="valid"), MAP),
    "conv wide padding": (conv(kernel=3, padding=4, stride=3), MAP),
    "conv grouped": (conv(outputs=6, groups=2), MAP),
    "conv depthwise": (conv(outputs=8, groups=4, padding=1), MAP),
    "conv depthwise over rows": (nn.Sequential(conv(padding=1, groups=2), DimensionWise(7, dim=2)), MAP),
    "conv depthwise over columns": (nn.Sequential(conv(padding=1, groups=2), DimensionWise(6, dim=3)), MAP),
    "conv 1x1": (conv(kernel=1, stride=2), MAP),
    "conv1d": (nn.Conv1d(3, 4, 3, padding=1, stride=2), (3, 9)),
    "conv1d same": (nn.Conv1d(3, 3, 3, padding="same", groups=3), (3, 9)),
    "conv3d": (nn.Conv3d(2, 3, (1, 3, 2), padding=(0, 1, 0)), (2, 3, 4, 4)),
    "conv3d same": (nn.Conv3d(2, 2, 3, padding="same", groups=2), (2, 3, 4, 4)),
    "rolling": (RollingPointwise(8, 12, 4, 0.5), (8, 3, 3)),
    "rolling strided": (RollingPointwise(6, 5, 2, 0.33, stride=2), (6, 5, 5)),
    "linear": (nn.Sequential(nn.Flatten(), nn.Linear(24, 5)), (2, 3, 4)),
    "linear on the last axis": (nn.Sequential(conv(), Call(lambda x: x.flatten(2)), nn.Linear(20, 3)), MAP),
    # pools
    "max pool": (before(lambda x: F.max_pool2d(x, 3, 2, 1)), MAP),
    "max pool, ceil": (before(lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True)), MAP),
    "max pool, dilated": (nn.MaxPool2d(2, 1, dilation=2), MAP),
    "max pool 1d": (nn.MaxPool1d(3), (3, 9)),
    "max pool 3d": (nn.MaxPool3d(2), (2, 4, 4, 4)),
    "avg pool": (before(lambda x: F.avg_pool2d(x, 3, 2, 1)), MAP),
    "avg pool, ceil": (nn.AvgPool2d(3, 2, ceil_mode=True), MAP),
    "avg pool 1d": (nn.AvgPool1d(3, 2), (3, 9)),
    "avg pool 3d": (nn.AvgPool3d(2), (2, 4, 4, 4)),
    "adaptive avg": (before(lambda x: F.adaptive_avg_pool2d(x, (3, 4))), MAP),
    "adaptive avg 1d": (nn.AdaptiveAvgPool1d(4), (3, 9)),
    "adaptive avg 3d": (nn.AdaptiveAvgPool3d((2, 3, 1)), (2, 4, 4, 4)),
    "adaptive max": (nn.AdaptiveMaxPool2d((3, 4)), MAP),
    "adaptive max 1d": (nn.AdaptiveMaxPool1d(4), (3, 9)),
    "adaptive max 3d": (nn.AdaptiveMaxPool3d(2), (2, 4, 4, 4)),
    # element by element
    "batch norm": (nn.Sequential(conv(), nn.BatchNorm2d(4)), MAP),
    "layer norm": (before(lambda x: F.layer_norm(x, (6,))), MAP),
    "layer norm over channels": (before(lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,))), MAP),
    "softmax": (before(lambda x: x.softmax(1)), MAP),
    "softmax over the map": (before(lambda x: x.softmax(-1)), MAP),
    "add": (Join(torch.add, conv(padding=1), SAME), MAP),
    "add broadcast": (Join(torch.add, SAME, nn.AdaptiveAvgPool2d(1)), MAP),
    "add in place": (Join(lambda a, b: a.clone().add_(b), conv(padding=1), SAME), MAP),
    "subtract": (Join(torch.sub, conv(padding=1, groups=4), conv(kernel=1)), MAP),
    "subtract in place": (Join(lambda a, b: a.clone().sub_(b), conv(padding=1), SAME), MAP),
    "divide": (Join(torch.div, conv(padding=1, groups=2), conv(kernel=1)), MAP),
    "divide in place": (Join(lambda a, b: a.clone().div_(b), conv(padding=1), SAME), MAP),
    "maximum": (Join(torch.maximum, conv(padding=1, groups=4), Call(lambda x: 2 * x)), MAP),
    "multiply": (Join(torch.mul, conv(padding=1, groups=2), conv(kernel=1)), MAP),
    "multiply in place": (Join(lambda a, b: a.clone().mul_(b), conv(padding=1), SAME), MAP),
    "gate": (Join(torch.mul, conv(padding=1), GATE), MAP),
    "gate first": (Join(torch.mul, GATE, conv(padding=1)), MAP),
    # shapes
    "channel shuffle": (before(lambda x: x.view(-1, 2, 2, 7, 6).transpose(1, 2).reshape(-1, 4, 7, 6)), MAP),
    "space to depth": (
        Call(lambda x: x.view(-1, 2, 2, 2, 3, 2).permute(0, 3, 5, 1, 2, 4).reshape(-1, 8, 2, 3)),
        (2, 4, 6),
    ),
    "flatten": (before(lambda x: x.flatten(1)), MAP),
    "unflatten": (before(lambda x: x.unflatten(1, (2, 2))), MAP),
    "unsafe view": (before(lambda x: aten._unsafe_view.default(x, [1, 2, 2, 7, 6])), MAP),
    "unsqueeze, squeeze": (before(lambda x: x.unsqueeze(1).squeeze(1)), MAP),
    "squeeze several": (before(lambda x: x.unsqueeze(1).unsqueeze(1).squeeze((1, 2))), MAP),
    "permute": (before(lambda x: x.permute(0, 2, 3, 1)), MAP),
    "transpose": (before(lambda x: x.transpose(1, 3)), MAP),
    "slice": (before(lambda x: x[:, 1:, ::2, -4:-1]), MAP),
    "pad": (before(lambda x: F.pad(x, (1, 2, 0, 3))), MAP),
    "crop": (before(lambda x: F.pad(x, (-1, 0, 2, -2))), MAP),
    "pad channels": (before(lambda x: F.pad(x, (0, 0, 0, 0, 2, 1))), MAP),
    "constant pad": (before(lambda x: aten.constant_pad_nd.default(x, [1, 0, 0, 1])), MAP),
    "cat": (Join(lambda a, b: torch.cat([a, b], 1), conv(padding=1), conv(outputs=2, kernel=1)), MAP),
    "cat on the map": (Join(lambda a, b: torch.cat([a, b], 2), conv(padding=1), SAME), MAP),
    "split": (before(lambda x: torch.cat(x.split(3, 1)[::-1], 1)), MAP),
    "split by sizes": (before(lambda x: torch.cat(x.split([1, 3], 1)[::-1], 1)), MAP),
    "chunk": (before(lambda x: torch.cat(x.chunk(2, 2)[::-1], 2)), MAP),
    "mean": (before(lambda x: x.mean((2, 3))), MAP),
    "mean over channels": (before(lambda x: x.mean(1, keepdim=True)), MAP),
    "sum": (before(lambda x: x.sum(-1)), MAP),
    "largest": (before(lambda x: x.amax((2,))), MAP),
    "roll": (before(lambda x: x.roll((1, -2), (1, 3))), MAP),
}


# Global mixers: all see all, which bounds what autograd finds.
MIXERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "matmul": (Join(torch.matmul, conv(kernel=1), Call(lambda x: x.transpose(2, 3))), (4, 3, 3)),
    "bmm": (Call(lambda x: torch.bmm(x, x)), (3, 3)),
    "mm": (Call(lambda x: torch.mm(x, torch.ones(4, 3, dtype=x.dtype))), (4,)),
    "attention": (Call(lambda x: F.scaled_dot_product_attention(x, x * 2, x + 1)), (2, 3, 4)),
}


def captured(net: nn.Module, shape: tuple[int, ...]) -> cs.Graph:
    return cs.capture(net, torch.zeros(1, *shape, dtype=torch.float64))


@pytest.mark.parametrize("name", SPECIMENS)
def test_what_an_op_sees_is_what_autograd_finds(name: str) -> None:
    net, shape = SPECIMENS[name]
    graph = captured(transparent(net), shape)
    assert not graph.unknown_ops
    reach = graph.reaches()[graph.outputs[0]]
    draws = 40 if "max" in name or "largest" in name else 3
    assert list(disagreements(net, shape, reach, draws=draws)) == []


@pytest.mark.parametrize("name", MIXERS)
def test_a_global_mixer_sees_all(name: str) -> None:
    net, shape = MIXERS[name]
    graph = captured(transparent(net), shape)
    assert not graph.unknown_ops
    reach = graph.reaches()[graph.outputs[0]]
    everything = ((True,) * shape[0], tuple((0, size - 1) for size in shape[1:]))
    assert all(seen_by_reach(reach, index) == everything for index in np.ndindex(*reach.shape))


OWN = {"weight": torch.full((4,), 0.3, dtype=torch.float64)}
FILL = {"number": 0.5, "Scalar": 0.5, "float": 0.5, "bool": False, "int": torch.float64, "ScalarType": torch.float64}


def from_schema(name: str) -> nn.Module:
    """An op that works on each element by itself, its further arguments filled in by their types."""
    _, op, overload = name.split(".")
    target = getattr(getattr(aten, op), overload)
    needed = [a for a in target._schema.arguments[1:] if not a.has_default_value() and not a.kwarg_only]
    given = [OWN[a.name] if a.name in OWN else FILL[str(a.real_type)] for a in needed]
    options = {"min": 0.5} if op in ("clamp", "clamp_") else {}
    return Call(lambda x: target(x.clone() if op.endswith("_") else x, *given, **options))


def test_every_other_op_with_a_rule_moves_nothing() -> None:
    specimens = [*SPECIMENS.values(), *MIXERS.values()]
    structural = {node.call.op for net, shape in specimens for node in captured(net.double(), shape).nodes}
    for name in sorted(set(RULES) - structural):
        net = from_schema(name)
        graph = captured(net, (4, 3, 3))
        assert graph.unknown_ops == {}
        reach = graph.reaches()[graph.outputs[0]]
        assert reach.extent().window == (1, 1), name
        if "detach" not in name:  # which cuts the gradient, and is for gates
            assert list(disagreements(net, (4, 3, 3), reach, draws=24)) == [], name


# --- random nets


@st.composite
def nets(draw: st.DrawFn) -> nn.Sequential:
    """Convolutions of every kind, pools, shuffles, splits, joins and shifts, one after another."""
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 4))):
        layers.append(draw(st.sampled_from(STEPS))(draw))
    return nn.Sequential(*layers)


def any_conv(draw: st.DrawFn) -> nn.Module:
    kernel, dilation = draw(st.sampled_from([1, 2, 3, (1, 3), (3, 2)])), draw(st.sampled_from([1, 1, 2]))
    stride, padding = draw(st.sampled_from([1, 1, 2, (2, 1)])), draw(st.integers(1, 2))
    return conv(
        kernel=kernel, dilation=dilation, stride=stride, padding=padding, groups=draw(st.sampled_from([1, 2, 4]))
    )


def keeping(draw: st.DrawFn) -> nn.Module:
    return conv(padding=1, groups=draw(st.sampled_from([1, 2, 4])))


def rolled(by: int, dim: int) -> nn.Module:
    return Call(lambda x: x.roll(by, dim))


STEPS: list[Callable[[st.DrawFn], nn.Module]] = [
    any_conv,
    lambda draw: nn.AvgPool2d(2, draw(st.integers(1, 2)), padding=1, ceil_mode=draw(st.booleans())),
    lambda draw: nn.Sequential(keeping(draw), nn.BatchNorm2d(4), nn.ReLU()),
    lambda draw: Join(torch.add, keeping(draw), SAME),
    lambda draw: Join(lambda a, b: torch.cat([a, b[:, :2]], 1)[:, 1:5], keeping(draw), SAME),
    lambda draw: Call(lambda x: x.view(-1, 2, 2, *x.shape[2:]).transpose(1, 2).reshape(-1, 4, *x.shape[2:])),
    lambda draw: Call(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)),
    lambda draw: rolled(draw(st.integers(-2, 2)), 1),
    lambda draw: rolled(draw(st.integers(-1, 1)), 2),
    lambda draw: Call(lambda x: F.pad(x, (1, 0, 0, 1))),
]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(nets(), st.integers(5, 9), st.integers(5, 9))
def test_random_nets_see_what_autograd_finds(net: nn.Sequential, height: int, width: int) -> None:
    shape = (4, height, width)
    graph = captured(transparent(net), shape)
    reach = graph.reaches()[graph.outputs[0]]
    assert list(disagreements(net, shape, reach, most=24, draws=2)) == []


# --- real nets

REAL: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[str]]] = {
    "vgg11": (lambda: cs.build("vgg11", input=(3, 32, 32)), (3, 32, 32), ["features.8", "features.25"]),
    "resnet20": (lambda: cs.build("resnet20"), (3, 32, 32), ["layer1.1.conv2", "layer2.0.conv2", "layer3.0.conv1"]),
    "mobilenet": (lambda: cs.build("mobilenet", input=(3, 32, 32)), (3, 32, 32), ["layer2.1", "layer3.0"]),
    "shufflenet": (models.shufflenet_v2_x0_5, (3, 64, 64), ["stage2.1.branch2.0", "stage2.3.branch2.5"]),
    "mobilenet_v2": (models.mobilenet_v2, (3, 64, 64), ["features.4.conv.1.0", "features.7.conv.2"]),
    "squeezenet": (models.squeezenet1_1, (3, 64, 64), ["features.4.expand3x3", "features.7.expand1x1"]),
    "densenet": (models.densenet121, (3, 64, 64), ["features.denseblock1.denselayer4.conv2"]),
    "resnext": (models.resnext50_32x4d, (3, 64, 64), ["layer1.0.conv2", "layer2.0.conv2"]),
}


class UpTo(nn.Module):
    """A net as far as the last call of one of its modules."""

    def __init__(self, net: nn.Module, path: str) -> None:
        super().__init__()
        self.net, self.path = net, path

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        hook = self.net.get_submodule(self.path).register_forward_hook(lambda module, args, out: kept.append(out))
        self.net(x)
        hook.remove()
        return kept[-1]


@pytest.mark.parametrize("name", REAL)
def test_layers_of_real_nets_see_what_autograd_finds(name: str) -> None:
    build, shape, paths = REAL[name]
    net = build()
    for module in net.modules():
        if isinstance(module, nn.MaxPool2d):  # averages see the same, without hiding what is not largest
            module.forward = _as_average(module)  # type: ignore[method-assign]
        if isinstance(module, nn.ReLU6):  # positive weights drive it to its flat end
            module.forward = F.relu  # type: ignore[method-assign]
    transparent(net)
    graph = cs.capture(net, torch.zeros(1, *shape, dtype=torch.float64))
    reaches = graph.reaches()
    for path in paths:
        last = [node for node in graph.nodes if node.module == path or node.module.startswith(f"{path}.")][-1]
        assert list(disagreements(UpTo(net, path), shape, reaches[last.name], most=3, draws=1)) == []


def _as_average(pool: nn.MaxPool2d) -> Callable[[Tensor], Tensor]:
    return lambda x: F.avg_pool2d(x, pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)


# --- cost


COUNTED = [name for name in SPECIMENS if name.split()[0].startswith(("conv", "rolling", "linear"))]


@pytest.mark.parametrize("name", [*COUNTED, *MIXERS])
def test_multiplications_are_those_of_torchs_counter(name: str) -> None:
    net, shape = (SPECIMENS | MIXERS)[name]
    net = net.float()
    assert cs.capture(net, torch.zeros(1, *shape)).macs == torch_macs(net, torch.zeros(1, *shape)) > 0


# --- what is not known is said


class Odd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(2)


@pytest.mark.parametrize(
    ("op", "layer"),
    [
        ("aten.cumsum.default", Odd()),
        ("aten.flip.default", Call(lambda x: x.flip(3))),
        ("aten.pad.default", Call(lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"))),
    ],
)
def test_an_op_without_an_answer_is_named_and_nothing_behind_it_is_guessed(op: str, layer: nn.Module) -> None:
    net = nn.Sequential(conv(padding=1), layer, conv(padding=1), nn.ReLU())
    graph = cs.capture(net, torch.zeros(1, *MAP))
    assert graph.unknown_ops == {op: 1}
    behind = [node.name for node in graph.nodes if node.module in ("1", "2", "3")]
    assert not set(behind) & set(graph.reaches())
    scores = cs.score(graph)
    assert [layer.reach is None for layer in scores.layers] == [False, True]
    assert graph.macs == sum(layer.macs for layer in scores.layers) > 0, "costs are still counted"
    plan = cs.decompose(graph, block="dw-pw")
    assert [edit.layer for edit in plan.edits] == ["0"]  # type: ignore[union-attr]


def test_a_weight_that_sees_the_input_is_not_guessed() -> None:
    dynamic = Call(lambda x: F.conv2d(x, x.mean((2, 3), keepdim=True)))
    graph = cs.capture(dynamic, torch.zeros(1, *MAP))
    assert graph.unknown_ops == {"aten.conv2d.default": 1}
    assert graph.outputs[0] not in graph.reaches()
