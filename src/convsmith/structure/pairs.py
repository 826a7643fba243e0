"""Separable pairs: a depthwise convolution and the pointwise behind it, which one convolution can stand in for."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

from convsmith.blocks import DwPw
from convsmith.graph import Graph, Node, is_norm
from convsmith.graph.call import Operand
from convsmith.graph.ops import ACTIVATIONS
from convsmith.kernels.spec import ConvSpec
from convsmith.plan import Merge, Refusal
from convsmith.structure.editable import untouchable
from convsmith.structure.stages import is_depthwise
from convsmith.structure.units import calls_inside

# Functions whose answer they leave alone when it comes back to them.
IDEMPOTENT = frozenset(["aten.relu.default", "aten.relu6.default", "aten.hardtanh.default"])


@dataclass(frozen=True)
class Pair:
    """A depthwise and a pointwise convolution, the calls between, and the convolution that does the work of all.

    `modules` are those between, which go with it.
    """

    first: Node
    between: tuple[Node, ...]
    second: Node
    modules: tuple[str, ...]
    spec: ConvSpec

    @property
    def macs(self) -> tuple[int, int]:
        """Multiply-accumulates of the pair, and of the convolution."""
        return self.first.macs + self.second.macs, self.spec.macs(self.second.call.out[2:])

    @property
    def edit(self) -> Merge:
        """What a plan says of it."""
        bent = [node for node in self.between if not is_norm(node)]
        what = "nothing but a scale per channel" if self.between else "nothing"
        reason = f"{what} stands between the two: their weights are carried exactly"
        if bent:
            name = _plain(bent[0].call.op).split(".")[1]
            reason = f"the {name} between the two goes as well: it has to be trained, their weights are only a start"
        return Merge(
            self.first.module, self.modules, self.second.module, self.spec.bias, not bent, reason, self.macs,
            self.params,
        )  # fmt: skip

    @property
    def params(self) -> tuple[int, int]:
        """Parameters of all that the convolution replaces, and its own."""
        kernel = prod(self.spec.kernel) * self.spec.in_channels + self.spec.bias
        return sum(n.params for n in (self.first, *self.between, self.second)), self.spec.out_channels * kernel


def find_pairs(graph: Graph) -> tuple[list[Pair], list[Refusal]]:
    """The separable pairs that can be merged, and why the other depthwise convolutions are in none."""
    reaches = graph.reaches()
    pairs: list[Pair] = []
    refusals: list[Refusal] = []
    for node in filter(is_depthwise, graph.nodes):
        pair = _pair(graph, node) if node.name in reaches else "it stands behind an op without a rule"
        if isinstance(pair, Pair):
            pairs.append(pair)
        else:
            refusals.append(Refusal(node.module, pair))
    return pairs, refusals


def _pair(graph: Graph, first: Node) -> Pair | str:
    """The pair that a depthwise convolution starts, or why it starts none."""
    spec = first.conv_spec()
    reason = untouchable(graph, first, spec)
    if reason or spec is None:
        return reason or ""
    if spec.out_channels != spec.in_channels:
        return f"it has {spec.out_channels // spec.in_channels} filters per channel, a depth multiplier"
    behind = _behind(graph, first)
    if isinstance(behind, str):
        return behind
    *between, second = behind
    last = second.conv_spec()
    if (reason := untouchable(graph, second, last) or _no_pointwise(last)) or last is None:
        return f"{second.module} behind it cannot be merged: {reason}"
    left = [node for node in between if not _module_of(graph, node, between)]
    if stuck := [node for node in left if not _idle(graph, first, node)]:
        return f"the {_plain(stuck[0].call.op).split('.')[1]} behind it is no module of its own, which could go"
    constant = spec.bias or any(map(is_norm, between))
    bias = last.bias or (constant and graph.norm_behind(second) is None)
    merged = replace(spec, out_channels=last.out_channels, groups=1, bias=bias)
    if reason := DwPw().refuses(merged):
        return f"there would be no way back: {reason}"
    return Pair(first, tuple(between), second, tuple(_modules(graph, between)), merged)


def _behind(graph: Graph, first: Node) -> list[Node] | str:
    """The calls behind a depthwise convolution up to the next convolution, if that is all that its answer goes to."""
    calls = [first]
    while calls[-1] is first or calls[-1].kind != "conv":
        readers = graph.readers(calls[-1].name)
        if len(readers) != 1 or calls[-1].name in graph.outputs:
            others = len(readers) + graph.outputs.count(calls[-1].name)
            return f"{others} calls read what comes out of it" if others else "nothing reads what comes out of it"
        if readers[0].kind != "conv" and not is_norm(readers[0]) and readers[0].call.op not in ACTIVATIONS:
            return f"{readers[0].call.op} stands behind it, no scale per channel, activation or pointwise"
        calls.append(readers[0])
    return calls[1:]


def _no_pointwise(spec: ConvSpec | None) -> str | None:
    if spec is None:
        return "it is not a plain convolution"
    if prod(spec.kernel) > 1:
        return "it is not pointwise"
    if spec.groups > 1:
        return f"it has {spec.groups} groups"
    return "it strides or pads" if prod(spec.stride) > 1 or any(spec.padding) else None


def _module_of(graph: Graph, node: Node, between: list[Node]) -> str | None:
    """The module that makes this call, if it makes none but calls that go."""
    names = {each.name for each in between}
    inside = calls_inside(graph, (node.module,))
    return node.module if node.module and all(each.name in names for each in inside) else None


def _modules(graph: Graph, between: list[Node]) -> Iterator[str]:
    """The modules of calls, without those within another."""
    paths = dict.fromkeys(path for node in between if (path := _module_of(graph, node, between)))
    for path in paths:
        if not any(path.startswith(f"{other}.") for other in paths):
            yield path


def _idle(graph: Graph, first: Node, node: Node) -> bool:
    """Whether a function can stay: without the depthwise before it, it would be given its own answer."""
    maker = graph.by_name.get(first.call.input.name)
    if maker is None or node.call.op not in IDEMPOTENT:
        return False
    return _plain(maker.call.op) == node.call.op and _settings(maker) == _settings(node)


def _settings(node: Node) -> list[object]:
    return [value for value in node.call.args.values() if not isinstance(value, Operand)]


def _plain(op: str) -> str:
    """An op's name whether it works in place or not."""
    return op.replace("_.", ".")
