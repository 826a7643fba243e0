"""Capture a model that runs as a graph of ATen calls, each with its shapes, module path, costs and rule."""

import hashlib
import operator
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node as FxNode

from convsmith.call import RULES, Call, Operand
from convsmith.conv import ConvSpec
from convsmith.errors import ConvsmithError
from convsmith.ops import conv_padding
from convsmith.reach import Reach

GETITEM = "getitem"

# What a model's forward, traced, is seen to raise; torch's own export errors are RuntimeErrors.
FORWARD_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError, ArithmeticError,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Node:
    """One call that depends on the model's input.

    `module` is the path of the innermost module that made the call, `leaf` says that this module has no children;
    `params` counts the learnable scalars first used here; `known` is false from an op without a rule on downwards.
    """

    name: str
    call: Call
    module: str
    leaf: bool
    params: int
    known: bool

    @property
    def ruled(self) -> bool:
        """Whether the op itself has a rule."""
        return self.call.op == GETITEM or self.call.op in RULES

    @property
    def kind(self) -> str:
        """`conv`, `linear`, `matmul` or `attention` for layers, empty for the rest."""
        return RULES[self.call.op].kind if self.call.op in RULES else ""

    @property
    def macs(self) -> int:
        """Multiply-accumulates for the captured input."""
        return RULES[self.call.op].macs(self.call) if self.call.op in RULES else 0

    @property
    def ptflops(self) -> int:
        """What ptflops counts: leaf modules only, functions called in passing are not seen."""
        return RULES[self.call.op].ptflops(self.call) if self.leaf and self.call.op in RULES else 0

    def conv_spec(self) -> ConvSpec | None:
        """The convolution as plain data; None for anything but an evenly padded `nn.Conv2d` call."""
        if not self.call.op.startswith("aten.conv2d") or not self.leaf:
            return None
        out, per_group, height, width = self.call["weight"].shape
        groups = self.call["groups"]
        pad = conv_padding(self.call)
        stride, dilation = (_pair(self.call[name]) for name in ("stride", "dilation"))
        if self.call["padding"] == "same" and (dilation[0] * (height - 1) % 2 or dilation[1] * (width - 1) % 2):
            return None  # padded unevenly
        bias = self.call["bias"] is not None
        return ConvSpec(per_group * groups, out, (height, width), stride, (pad[0], pad[1]), dilation, groups, bias)


def _pair(value: list[int]) -> tuple[int, int]:
    return value[0], value[-1]


@dataclass(frozen=True)
class Graph:
    """A captured model: the calls in order, its inputs and outputs, and what its modules hold.

    `params` counts all learnable scalars, shared ones once; `sequences` names the children of every nn.Sequential in
    order; `calls` says how often each module ran; `shared` names modules whose parameters another module holds too.
    """

    model: str
    inputs: tuple[Operand, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    params: int
    sequences: Mapping[str, tuple[str, ...]] = field(repr=False)
    calls: Mapping[str, int] = field(repr=False)
    shared: frozenset[str] = field(repr=False)

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """Nodes by the name of the tensor they make."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor, batch included."""
        return {x.name: x.shape for x in self.inputs} | {node.name: node.call.out for node in self.nodes}

    @property
    def layers(self) -> list[Node]:
        """The calls that multiply weights or activations."""
        return [node for node in self.nodes if node.kind]

    @cached_property
    def unknown_ops(self) -> dict[str, int]:
        """Ops without a rule, or called in a way that their rule has no answer for, and how often each is."""
        _, lost = self._answers(self.inputs[0].name)
        unanswered = (n for n in self.nodes if n.name in lost and not lost.intersection(self.sources(n)))
        unruled = (node for node in self.nodes if not node.ruled)
        return dict(Counter(node.call.op for node in dict.fromkeys([*unruled, *unanswered])))

    @property
    def macs(self) -> int:
        """Multiply-accumulates, batch 1, as torch's FlopCounterMode counts them, halved."""
        return sum(node.macs for node in self.nodes)

    @property
    def ptflops(self) -> int:
        """Multiply-accumulates as ptflops counts them."""
        return sum(node.ptflops for node in self.nodes)

    @property
    def fingerprint(self) -> str:
        """Tells this net on this input from others: a hash of its layers' paths, ops and shapes."""
        layers = [(n.module, n.call.op, [x.shape for x in n.call.operands], n.call.out) for n in self.layers]
        return hashlib.sha256(repr(layers).encode()).hexdigest()[:16]

    @cached_property
    def cuts(self) -> tuple[str, ...]:
        """The tensors that everything behind them must pass through, the input first."""
        order = [x.name for x in self.inputs] + [node.name for node in self.nodes]
        place = {name: i for i, name in enumerate(order)}
        last = dict.fromkeys(order, -1) | dict.fromkeys(self.outputs, len(order))
        for node in self.nodes:
            for name in self.sources(node):
                last[name] = max(last[name], place[node.name])
        open_until, cuts = -1, []
        for i, name in enumerate(order):
            if open_until <= i:  # every earlier tensor is used up by now
                cuts.append(name)
            open_until = max(open_until, last[name])
        return tuple(cuts)

    def sources(self, node: Node) -> list[str]:
        """The names of the tensors a call reads, the model's own left out."""
        return [x.name for x in node.call.operands if not x.own]

    def before(self, node: Node) -> str:
        """The last tensor through which everything that a call reads has come: its stage's or unit's entry."""
        order = {name: i for i, name in enumerate(self.shapes)}
        first = min(order[name] for name in self.sources(node))
        return max((cut for cut in self.cuts if order[cut] <= first), key=order.__getitem__)

    def reaches(self, source: str | None = None) -> dict[str, Reach]:
        """The reach of every tensor behind `source` (default: the model's first input), as far as it is known."""
        answers, _ = self._answers(source or self.inputs[0].name)
        return {name: reach for name, reach in answers.items() if isinstance(reach, Reach)}

    def _answers(self, start: str) -> tuple[dict[str, Any], set[str]]:
        """What the rules answer behind `start` (several reaches for several outputs), and what they cannot answer."""
        known: dict[str, Any] = {start: Reach.source(self.shapes[start][1:])}
        lost: set[str] = set()  # also what joins it with something known: half an answer would be a guess
        for node in self.nodes:
            sources = self.sources(node)
            if not node.known or lost.intersection(sources):
                lost.add(node.name)
            elif any(name in known for name in sources):
                answer = _answer(node, known)
                if answer is None:
                    lost.add(node.name)
                else:
                    known.setdefault(node.name, answer)
        return known, lost


def _answer(node: Node, known: Mapping[str, Any]) -> Any:
    seen = [known.get(operand.name) for operand in node.call.operands]
    if node.call.op == GETITEM:
        return known[node.call.input.name][node.call["index"]]
    return RULES[node.call.op].reach(node.call, seen)


def capture(model: nn.Module, *inputs: Tensor, name: str = "") -> Graph:
    """Capture `model` as it runs in evaluation mode on `inputs` (batch first; any batch size, 1 is used).

    The model is left as it was. Raises ConvsmithError when it does not run on these inputs or cannot be exported.

    >>> graph = capture(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.zeros(1, 3, 8, 8))
    >>> [(node.module, node.call.op, node.macs) for node in graph.nodes]
    [('0', 'aten.conv2d.default', 7776), ('1', 'aten.relu.default', 0)]
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        program = torch.export.export(model, tuple(x[:1] for x in inputs), strict=False)
    except FORWARD_ERRORS as error:
        raise ConvsmithError(_why_not(model, inputs, error)) from error
    finally:
        for module in training:
            module.training = True
    return _read(model, program, name or type(model).__name__)


def _why_not(model: nn.Module, inputs: tuple[Tensor, ...], error: Exception) -> str:
    shapes = ", ".join("x".join(map(str, x.shape[1:])) for x in inputs)
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return (
        f"{type(model).__name__} cannot be captured on input {shapes}: {reason}; check --input and the model's forward."
    )


def _read(model: nn.Module, program: torch.export.ExportedProgram, name: str) -> Graph:
    leaves = {path for path, module in model.named_modules() if not any(module.children())}
    fx_nodes = list(program.graph.nodes)
    inputs = set(program.graph_signature.user_inputs)
    sizes = _parameter_sizes(program)
    active: set[str] = set(inputs)
    unknown: set[str] = set()
    nodes: list[Node] = []
    for fx in fx_nodes:
        sources = [source.name for source in fx.all_input_nodes]
        if fx.op != "call_function" or fx.meta.get("val") is None or not active.intersection(sources):
            continue  # without a value: an assertion that torch.export left
        active.add(fx.name)
        path = _module_path(fx)
        call = _call(fx, active)
        params = sum(sizes.pop(n, 0) for source in fx.all_input_nodes for n in _own_sources(source, active))
        node = Node(fx.name, call, path, path in leaves, params, not unknown.intersection(sources))
        if not node.ruled or not node.known:
            unknown.add(fx.name)
            node = Node(fx.name, call, path, path in leaves, params, known=False)
        nodes.append(node)
    return Graph(
        name,
        tuple(Operand(fx.name, _shape(fx)) for fx in fx_nodes if fx.name in inputs),
        tuple(nodes),
        tuple(str(out) for out in program.graph_signature.user_outputs),
        sum(p.numel() for p in model.parameters()),
        {path: tuple(m._modules) for path, m in model.named_modules() if isinstance(m, nn.Sequential)},
        Counter(path for fx in fx_nodes for path in _calls(fx, leaves)),
        frozenset(_sharing(model)),
    )


def _own_sources(fx: FxNode, active: set[str]) -> Iterator[str]:
    """The parameters a tensor of the model's own is made from (itself, or what a weight is computed from)."""
    if fx.name in active:
        return
    yield fx.name
    for source in fx.all_input_nodes:
        yield from _own_sources(source, active)


def _parameter_sizes(program: torch.export.ExportedProgram) -> dict[str, int]:
    held = dict(program.named_parameters())
    return {name: held[path].numel() for name, path in program.graph_signature.inputs_to_parameters.items()}


def _module_path(fx: FxNode) -> str:
    stack = list(fx.meta.get("nn_module_stack", {}).values())
    return re.sub(r"@\d+", "", stack[-1][0]) if stack else ""


def _calls(fx: FxNode, leaves: set[str]) -> list[str]:
    """The leaf module that a multiplying call belongs to: how often it runs is how often it multiplies."""
    path = _module_path(fx)
    ruled = fx.op == "call_function" and str(fx.target) in RULES and RULES[str(fx.target)].kind
    return [path] if ruled and path in leaves else []


def _sharing(model: nn.Module) -> Iterator[str]:
    owners: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(path)
    for paths in owners.values():
        if len(paths) > 1:
            yield from paths


def _call(fx: FxNode, active: set[str]) -> Call:
    if fx.target is operator.getitem:
        args: dict[str, Any] = {"self": fx.args[0], "index": fx.args[1]}
    else:
        schema = fx.target._schema.arguments  # type: ignore[union-attr]
        args = {a.name: a.default_value for a in schema if a.has_default_value()}
        args |= dict(zip((a.name for a in schema), fx.args, strict=False)) | dict(fx.kwargs)
        args = {a.name: args[a.name] for a in schema if a.name in args}
    value = fx.meta["val"]
    outs = tuple(tuple(v.shape) for v in (value if isinstance(value, list | tuple) else [value]))
    op = GETITEM if fx.target is operator.getitem else str(fx.target)
    return Call(op, {name: _plain(arg, active) for name, arg in args.items()}, outs)


def _plain(value: Any, active: set[str]) -> Any:
    if isinstance(value, FxNode):
        return Operand(value.name, _shape(value), own=value.name not in active)
    if isinstance(value, list | tuple):
        return [_plain(item, active) for item in value]
    return value


def _shape(fx: FxNode) -> tuple[int, ...]:
    value = fx.meta.get("val")
    value = value[0] if isinstance(value, list | tuple) else value
    return tuple(value.shape) if isinstance(value, Tensor) else ()
