"""What to set in a copy of a unit so that it passes on what it reads: zeros, identity kernels, identity norms.

A residual unit passes its input on where the last layer of its branch is zero. A plain one does where its convolutions
and norms are identities and its ReLU changes nothing any more (Net2DeeperNet, Chen et al., "Net2Net", ICLR 2016).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from math import inf, prod
from typing import Literal

from convsmith.graph import Graph, Node, is_norm
from convsmith.graph.call import Operand
from convsmith.registry import Registry
from convsmith.structure.units import calls_inside

Range = tuple[float, float]
How = Literal["zero", "identity kernel", "identity norm"]


@dataclass(frozen=True)
class Setting:
    """How a tensor of a unit is set, by its path; of a norm the path of its module."""

    path: str
    how: How


class _NoWayError(Exception):
    """Why a tensor cannot be made what is wanted."""


def identity_start(graph: Graph, modules: Sequence[str]) -> tuple[Setting, ...] | str:
    """What to set in a copy of these modules so that behind them it changes nothing, or why that cannot be.

    In evaluation the copy answers what it reads. All that is set gets gradients: no ReLU stands behind a zero.

    modules: a unit, with one tensor in and one out.

    >>> import convsmith as cs, torch
    >>> graph = cs.capture(cs.build("resnet20"), torch.zeros(1, 3, 32, 32))
    >>> [setting.path for setting in identity_start(graph, ("layer1.1",))]
    ['layer1.1.bn2.weight', 'layer1.1.bn2.bias']
    """
    inside = {node.name: node for node in calls_inside(graph, tuple(modules))}
    entry = next(name for node in inside.values() for name in graph.sources(node) if name not in inside)
    last = next(name for name in reversed(inside) if _leaves(graph, name, inside))
    try:
        return _Finder(graph, inside, entry, _range(graph, last), graph.shapes[last][1]).identity(last)
    except _NoWayError as reason:
        return str(reason)


def _leaves(graph: Graph, name: str, inside: dict[str, Node]) -> bool:
    return name in graph.outputs or any(node.name not in inside for node in graph.readers(name))


@dataclass(frozen=True)
class _Finder:
    """The calls of one unit, the tensor that it reads, between what values that lies in a copy, and its channels."""

    graph: Graph
    inside: dict[str, Node]
    entry: str
    range: Range
    channels: int

    def identity(self, name: str) -> tuple[Setting, ...]:
        """What to set for a tensor to be what the copy reads."""
        if name == self.entry:
            return ()
        return self._by(IDENTITY, name, "which cannot be made to pass on what it reads")

    def zero(self, name: str) -> tuple[Setting, ...]:
        """What to set for a tensor to be zero."""
        if name == self.entry:
            raise _NoWayError("what it reads goes to its sum twice")
        return self._by(ZERO, name, "behind which nothing can be made zero and still learn")

    def _by(self, table: Registry["Way"], name: str, otherwise: str) -> tuple[Setting, ...]:
        node = self.inside.get(name)
        if node is None:
            raise _NoWayError("it reads more than one tensor")
        if node.call.op not in table:
            raise _NoWayError(f"it ends in {_named(node)}, {otherwise}")
        return table[node.call.op](self, node)


Way = Callable[[_Finder, Node], tuple[Setting, ...]]
IDENTITY: Registry[Way] = Registry("op that can pass on what it reads")
ZERO: Registry[Way] = Registry("op that can answer zero")


def _named(node: Node) -> str:
    return f"{node.call.op.split('.')[1].rstrip('_')} of {node.module}" if node.module else node.call.op


def _both(*ops: str, form: str = "default") -> list[str]:
    """Ops and what they are called in place."""
    return [f"aten.{op}{place}.{form}" for op in ops for place in ("", "_")]


_COPIES = (*_both("dropout", "feature_dropout"), "aten.clone.default", "aten.contiguous.default", "aten.alias.default")
_CLAMPS = (*_both("relu", "relu6", "hardtanh"),)
_CONVOLUTIONS = tuple(f"aten.conv{d}d.{form}" for d in (1, 2, 3) for form in ("default", "padding"))
_SUMS = (*_both("add", form="Tensor"),)
# f(0) = 0 with a slope there, or a move of elements: behind a zero they are zero, and let gradients through.
_ZERO_KEEPING = (
    *_both("silu", "gelu", "mish", "hardswish", "tanh", "elu", "celu", "selu", "leaky_relu"), "aten.prelu.default",
    "aten.permute.default", "aten.transpose.int", "aten.reshape.default", "aten.view.default",
    "aten.flatten.using_ints", "aten.avg_pool2d.default", "aten.adaptive_avg_pool2d.default",
    *_both("mul", "div", form="Scalar"),
)  # fmt: skip


def _interval(node: Node) -> Range:
    """Between what values a clamping op answers, and what it does not change."""
    lowest, highest = {"relu": (0.0, inf), "relu6": (0.0, 6.0)}.get(node.call.op.split(".")[1].rstrip("_"), (-1.0, 1.0))
    return float(node.call.args.get("min_val", lowest)), float(node.call.args.get("max_val", highest))


def _range(graph: Graph, name: str) -> Range:
    """Between what values all elements of a tensor lie, as far as the op that makes it says."""
    node = graph.by_name.get(name)
    if node is not None and node.call.op in _COPIES:
        return _range(graph, node.call.input.name)
    return _interval(node) if node is not None and node.call.op in _CLAMPS else (-inf, inf)


@IDENTITY.register(*_COPIES)
def _passed_on(finder: _Finder, node: Node) -> tuple[Setting, ...]:
    return finder.identity(node.call.input.name)


@IDENTITY.register(*_CLAMPS)
def _unclamped(finder: _Finder, node: Node) -> tuple[Setting, ...]:
    """A ReLU passes on what is not negative: what a ReLU has answered."""
    lowest, highest = _interval(node)
    if finder.range[0] < lowest or finder.range[1] > highest:
        raise _NoWayError(f"{_named(node)} would cut what it reads, as that comes from no such activation")
    return finder.identity(node.call.input.name)


@IDENTITY.register(*_CONVOLUTIONS)
def _centred(finder: _Finder, node: Node) -> tuple[Setting, ...]:
    """A kernel of zeros with a one in its middle, from each channel to the same."""
    spec = node.conv_spec()
    if spec is None:
        raise _NoWayError(f"{_named(node)} is no plain evenly padded convolution, so it has no identity kernel")
    depthwise = spec.groups == spec.in_channels == spec.out_channels
    centred = all(
        k % 2 and s == 1 and 2 * p == d * (k - 1)
        for k, s, p, d in zip(spec.kernel, spec.stride, spec.padding, spec.dilation, strict=True)
    )
    if not centred or not (depthwise or spec.out_channels == finder.channels):
        raise _NoWayError(f"{_named(node)} changes channels or the map, so it has no identity kernel")
    kernel = Setting(_own(finder.graph, node, "weight"), "identity kernel")
    return (kernel, *_zeroed(finder.graph, node, "bias"), *finder.identity(node.call.input.name))


@IDENTITY.register("aten.batch_norm.default")
def _kept(finder: _Finder, node: Node) -> tuple[Setting, ...]:
    if not is_norm(node):
        raise _NoWayError(f"{_named(node)} keeps no statistics, so it always changes what it reads")
    return (Setting(node.module, "identity norm"), *finder.identity(node.call.input.name))


@IDENTITY.register(*_SUMS)
def _one_of_sum(finder: _Finder, node: Node) -> tuple[Setting, ...]:
    """One term is what the copy reads, all others are zero; the way that sets the least."""
    first, *rest = (x.name for x in node.call.operands if not x.own)
    if len(rest) != 1 or node.call.args.get("alpha", 1) != 1:
        raise _NoWayError(f"{_named(node)} is no sum of two tensors")
    found, missed = [], []
    for kept, zeroed in ((first, rest[0]), (rest[0], first)):
        try:
            found.append((*finder.zero(zeroed), *finder.identity(kept)))
        except _NoWayError as reason:
            missed.append(reason)
    if not found:
        raise missed[0]
    return min(found, key=lambda settings: sum(setting.how != "zero" for setting in settings))


@ZERO.register(*_CONVOLUTIONS, "aten.linear.default", "aten.layer_norm.default", "aten.group_norm.default",
               "aten.batch_norm.default", "aten.rms_norm.default", "aten.instance_norm.default")  # fmt: skip
def _zero_weight(finder: _Finder, node: Node) -> tuple[Setting, ...]:
    weight = Setting(_own(finder.graph, node, "weight"), "zero")
    return (weight, *_zeroed(finder.graph, node, "bias"))


@ZERO.register("aten.mul.Tensor", "aten.mul_.Tensor")
def _zero_factor(finder: _Finder, node: Node) -> tuple[Setting, ...]:
    """A scale of the layer's own, or what is scaled."""
    for scale in node.call.operands:
        if scale.own and scale.name not in finder.graph.constants:
            return (Setting(scale.name, "zero"),)
    factors = sorted((x for x in node.call.operands if not x.own), key=lambda x: -prod(x.shape))
    return finder.zero(factors[0].name)  # not the gate, which is the smaller


@ZERO.register(*_SUMS)
def _zero_terms(finder: _Finder, node: Node) -> tuple[Setting, ...]:
    if any(x.own for x in node.call.operands):
        raise _NoWayError(f"{_named(node)} adds a table of its own")
    return tuple(chain.from_iterable(finder.zero(x.name) for x in node.call.operands))


@ZERO.register(*_COPIES, *_ZERO_KEEPING)
def _zero_source(finder: _Finder, node: Node) -> tuple[Setting, ...]:
    return finder.zero(node.call.input.name)


@ZERO.register(*_CLAMPS)
def _dead(finder: _Finder, node: Node) -> tuple[Setting, ...]:
    if _interval(node)[0] < 0:
        return finder.zero(node.call.input.name)
    raise _NoWayError(f"{_named(node)} ends its branch, and lets no gradient through to what is zero in front of it")


def _own(graph: Graph, node: Node, name: str) -> str:
    """The path of a parameter that a call reads."""
    tensor = node.call.args.get(name)
    if not isinstance(tensor, Operand) or not tensor.own or tensor.name in graph.constants:
        raise _NoWayError(f"{_named(node)} has no {name} of its own that could be set")
    return tensor.name


def _zeroed(graph: Graph, node: Node, name: str) -> tuple[Setting, ...]:
    """The parameter of that name to zero, where there is one."""
    return (Setting(_own(graph, node, name), "zero"),) if node.call.args.get(name) is not None else ()
