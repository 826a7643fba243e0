"""Random nets against autograd: layers one after another, and graphs with many branches and joins."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from specimens import Call, Join, conv
from torch import Tensor, nn

import convsmith as cs
from convsmith.testing.oracles import disagreements, transparent

Build = Callable[[st.DrawFn], nn.Module]
SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SAME = nn.Identity()

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


def any_conv(draw: st.DrawFn) -> nn.Module:
    kernel, dilation = draw(st.sampled_from([1, 2, 3, (1, 3), (3, 2)])), draw(st.sampled_from([1, 1, 2]))
    stride, padding = draw(st.sampled_from([1, 1, 2, (2, 1)])), draw(st.integers(1, 2))
    return conv(
        kernel=kernel, dilation=dilation, stride=stride, padding=padding, groups=draw(st.sampled_from([1, 2, 4]))
    )


def keeping(draw: st.DrawFn) -> nn.Module:
    """A convolution that keeps the map."""
    kernel, dilation = draw(st.sampled_from([1, 2, 3, (1, 3), (5, 1)])), draw(st.sampled_from([1, 1, 2]))
    return conv(kernel=kernel, padding="same", dilation=dilation, groups=draw(st.sampled_from([1, 2, 4])))


def transposed(draw: st.DrawFn) -> nn.Module:
    stride = draw(st.integers(1, 3))
    return nn.ConvTranspose2d(4, 4, draw(st.integers(1, 4)), stride, groups=draw(st.sampled_from([1, 2, 4])))


def pool(draw: st.DrawFn) -> nn.Module:
    stride, ceil, counted = draw(st.integers(1, 2)), draw(st.booleans()), draw(st.booleans())
    return nn.AvgPool2d(draw(st.integers(2, 3)), stride, 1, ceil_mode=ceil, count_include_pad=counted)


def shuffle(draw: st.DrawFn) -> nn.Module:
    return Call(lambda x: x.view(-1, 2, 2, *x.shape[2:]).transpose(1, 2).reshape(-1, 4, *x.shape[2:]))


def rolled(draw: st.DrawFn) -> nn.Module:
    by, dim = draw(st.integers(-2, 2)), draw(st.integers(1, 3))
    return Call(lambda x: x.roll(by, dim))


def shifted(draw: st.DrawFn) -> nn.Module:
    """Every channel to another side, and ones where it came from (zeros would hide what they are multiplied with)."""
    sides = [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    crops = [(slice(None), slice(None, -1)), (slice(None), slice(1, None)), (slice(None, -1), slice(None)),
             (slice(1, None), slice(None))]  # fmt: skip
    return Call(
        lambda x: torch.cat([F.pad(x[:, i : i + 1, *crops[i]], side, value=1.0) for i, side in enumerate(sides)], 1)
    )


def padded(draw: st.DrawFn) -> nn.Module:
    mode = draw(st.sampled_from(["constant", "replicate", "circular"]))
    return Call(lambda x: F.pad(x, (1, 0, 0, 1), mode=mode))


def resized(draw: st.DrawFn) -> nn.Module:
    mode, factor = draw(st.sampled_from(["nearest", "bilinear"])), draw(st.sampled_from([0.5, 2, 1.5]))
    # one pixel has no half
    return Call(lambda x: F.interpolate(x, scale_factor=factor, mode=mode) if min(x.shape[2:]) > 1 else x)


def unshuffled(draw: st.DrawFn) -> nn.Module:
    return nn.Sequential(
        Call(lambda x: F.pixel_shuffle(x, 2)), conv(1, 4, 2, stride=draw(st.integers(1, 2)), padding=1)
    )


def mixed_windows(draw: st.DrawFn) -> nn.Module:
    """Rows of the map as a batch, and a matrix product in each."""
    return Call(lambda x: (x.transpose(1, 2).flatten(0, 1) @ torch.ones(x.shape[3], 2, dtype=x.dtype)).unsqueeze(0))


STEPS: list[Build] = [
    any_conv, keeping, pool, transposed, shuffle, rolled, shifted, padded, resized, unshuffled,
    lambda draw: nn.Sequential(keeping(draw), nn.BatchNorm2d(4), nn.ReLU()),
    lambda draw: Join(torch.add, keeping(draw), SAME),
    lambda draw: Join(lambda a, b: torch.cat([a, b[:, :2]], 1)[:, 1:5], keeping(draw), SAME),
    lambda draw: Call(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)),
    lambda draw: Call(lambda x: torch.cat(x.chunk(2, 2)[::-1], 2)),
]  # fmt: skip


@st.composite
def lines(draw: st.DrawFn) -> nn.Sequential:
    """Layers one after another, perhaps with a mixer behind."""
    layers = [draw(st.sampled_from(STEPS))(draw) for _ in range(draw(st.integers(1, 4)))]
    return nn.Sequential(*layers, *([mixed_windows(draw)] if draw(st.integers(0, 3)) == 0 else []))


@SETTINGS
@given(lines(), st.integers(5, 8), st.integers(5, 8))
def test_layers_in_a_line_see_what_autograd_finds(net: nn.Sequential, height: int, width: int) -> None:
    agree(net, (4, height, width))


def agree(net: nn.Module, shape: tuple[int, ...]) -> None:
    graph = cs.capture(transparent(net), torch.zeros(1, *shape, dtype=torch.float64))
    assert not graph.unknown_ops
    reach = graph.reaches()[graph.outputs[0]]
    assert reach.shape == graph.shapes[graph.outputs[0]]
    assert list(disagreements(net, shape, reach, most=24, draws=2)) == []


# --- graphs


@dataclass(frozen=True)
class Vertex:
    """An operation of a graph and the earlier tensors it reads."""

    op: nn.Module
    sources: tuple[int, ...]


class Dag(nn.Module):
    """Operations on four channels of one map; what no operation reads is concatenated."""

    def __init__(self, vertices: list[Vertex]) -> None:
        super().__init__()
        self.vertices = vertices
        self.ops = nn.ModuleList(vertex.op for vertex in vertices)

    def forward(self, x: Tensor) -> Tensor:
        made = [x]
        for vertex in self.vertices:
            made.append(vertex.op(*(made[i] for i in vertex.sources)))
        read = {i for vertex in self.vertices for i in vertex.sources}
        return torch.cat([tensor for i, tensor in enumerate(made) if i not in read], 1)


class Combine(nn.Module):
    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.function(a, b)


def split_and_join(a: Tensor, b: Tensor) -> Tensor:
    first, second = a.split([1, 3], 1)
    return torch.cat([second, b[:, :1] * first], 1)


ONE: list[Build] = [keeping, shuffle, rolled, shifted, lambda draw: nn.AvgPool2d(3, 1, 1)]
TWO: list[Callable[[Tensor, Tensor], Tensor]] = [
    torch.add, torch.mul, split_and_join,
    lambda a, b: torch.cat([a, b], 1)[:, ::2],
    lambda a, b: torch.stack([a, b], 2).flatten(1, 2)[:, 2:6],
    lambda a, b: a + b.mean(3, keepdim=True),
    lambda a, b: a[:, :, :1] + b[..., :1],
    lambda a, b: a + b.flip(2),
]  # fmt: skip


@st.composite
def graphs(draw: st.DrawFn) -> Dag:
    """Each operation reads any earlier tensors, one or two."""
    vertices: list[Vertex] = []
    for made in range(1, draw(st.integers(2, 7))):
        earlier = st.integers(0, made - 1)
        if draw(st.booleans()):
            vertices.append(Vertex(draw(st.sampled_from(ONE))(draw), (draw(earlier),)))
        else:
            vertices.append(Vertex(Combine(draw(st.sampled_from(TWO))), (draw(earlier), draw(earlier))))
    return Dag(vertices)


@SETTINGS
@given(graphs(), st.integers(4, 6), st.integers(4, 6))
def test_graphs_see_what_autograd_finds(net: Dag, height: int, width: int) -> None:
    agree(net, (4, height, width))
