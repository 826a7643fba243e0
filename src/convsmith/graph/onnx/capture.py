"""The graph of an ONNX file, node by node."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from onnx import NodeProto, TensorProto, TypeProto, helper
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError

from convsmith.errors import CaptureError, FileError
from convsmith.graph.call import RULES, Call, Operand
from convsmith.graph.graph import Graph, Node
from convsmith.graph.onnx.facts import Fact, constant, fold, infer, shape_of, stored
from convsmith.graph.onnx.file import bindings, declared, inputs_of, read
from convsmith.graph.onnx.names import module_of
from convsmith.graph.onnx.op import TRANSLATIONS, Declined, Op, Shape
from convsmith.graph.onnx.tidy import with_bias, with_leaves

STATISTICS = ("running_mean", "running_var")  # arguments that no training changes by gradients
WHOLE = (TensorProto.INT64, TensorProto.BOOL)  # types of sizes, indices and masks
KIND = "pkg.torch.export.graph_signature.InputSpec.kind"  # PARAMETER or BUFFER, written by torch's exporter


def capture_onnx(path: str | Path, input: Shape | None = None, name: str = "") -> Graph:
    """Capture the net in an ONNX file, at batch 1.

    input: (channels, *map), needed where the file leaves sizes open. An op without a translation appears as
    `onnx.NAME`: it has no rule, and nothing behind it is guessed. Parameters are the file's tensors that are neither
    whole numbers, single numbers nor running statistics, as an exporter stored them: folding a normalization into a
    convolution changes their count, and layers, MACs and reach stay.
    Raises ConvsmithError when the file is missing or no ONNX file, has no or other sizes, or cannot be read through.
    """
    path = Path(path)
    model = read(path)
    reader = _Reader(path, model, inputs_of(model, input, path))
    for node in model.graph.node:
        reader.take(node)
    return reader.graph([value.name for value in model.graph.output], name or path.name)


class _Reader:
    """Takes nodes in order and keeps what is known of every tensor so far."""

    def __init__(self, path: Path, model: Any, inputs: dict[str, TypeProto]) -> None:
        self._path = path
        self._opsets = {"" if e.domain == "ai.onnx" else e.domain: e.version for e in model.opset_import}
        self._declared = declared(model, bindings(model, inputs))
        self._kinds = {v.name: e.value for v in model.graph.value_info for e in v.metadata_props if e.key == KIND}
        self._used = {name for node in model.graph.node for name in _reads(node)}
        self._used.update(value.name for value in model.graph.output)
        self._inputs = tuple(Operand(key, shape_of(kind) or ()) for key, kind in inputs.items())
        self._facts = {x.name: Fact(x, inputs[x.name]) for x in self._inputs}
        self._sizes: dict[str, int] = {}  # of parameters that no call has used yet
        self._nodes: list[Node] = []
        self._unknown: set[str] = set()
        self._has_weights = any(tensor.data_type not in WHOLE and tensor.dims for tensor in model.graph.initializer)
        for tensor in model.graph.initializer:
            self._facts[tensor.name] = self._stored(tensor)
            self._offer(tensor.name)

    def _stored(self, tensor: TensorProto) -> Fact:
        try:
            return stored(tensor, self._path.parent)
        except (OSError, ValueError, ValidationError) as error:
            raise FileError(
                f"{self._path}: the numbers of {tensor.name} cannot be read; keep the file of its weights beside it."
            ) from error

    def _offer(self, name: str) -> None:
        """Count a stored tensor as parameters once a call uses it."""
        fact, kind = self._facts[name], self._kinds.get(name)
        learned = fact.type.tensor_type.elem_type not in WHOLE and fact.operand.shape
        if kind == "PARAMETER" or (kind is None and learned):
            self._sizes[name] = prod(fact.operand.shape)

    def take(self, node: NodeProto) -> None:
        """Compute a node, if it is constant, else translate it."""
        missing = [name for name in _reads(node) if name not in self._facts]
        if missing:
            raise CaptureError(f"{self._path}: {_told(node)} reads {missing[0]!r}, which nothing makes; write it anew.")
        facts = {name: self._facts[name] for name in _reads(node)}
        if node.op_type == "If" and facts[node.input[0]].value is not None:
            self._branch(node, bool(facts[node.input[0]].value))
        elif not self._fold(node, facts):
            types = self._types(node, facts)
            if all(fact.operand.own for fact in facts.values()):
                self._compute(node, facts, types)
            else:
                self._translate(node, types)

    def _branch(self, node: NodeProto, taken: bool) -> None:
        attributes = {a.name: a.g for a in node.attribute}
        branch = attributes["then_branch" if taken else "else_branch"]
        for tensor in branch.initializer:
            self._facts[tensor.name] = self._stored(tensor)
        for inner in branch.node:
            self._used.update(_reads(inner))
        for inner in branch.node:
            self.take(inner)
        for name, value in zip(node.output, branch.output, strict=True):
            self._facts[name] = self._facts[value.name]

    def _fold(self, node: NodeProto, facts: dict[str, Fact]) -> bool:
        values = fold(node, facts, self._opsets)
        if values is None:
            return False
        parts = [] if node.op_type in ("Shape", "Size") else [part for fact in facts.values() for part in fact.parts]
        for name, value in zip(filter(None, node.output), values, strict=True):
            self._own(node, constant(name, value, parts))
        return True

    def _compute(self, node: NodeProto, facts: dict[str, Fact], types: dict[str, TypeProto]) -> None:
        """A tensor of the model's own that is too large to compute here."""
        parts = tuple(part for fact in facts.values() for part in fact.parts)
        for name in filter(None, node.output):
            shape = self._shape(node, types.get(name))
            self._own(node, Fact(Operand(name, shape, own=True), types[name], parts=parts))

    def _own(self, node: NodeProto, fact: Fact) -> None:
        """Keep it; torch's exporter copies a parameter of equal numbers, and other tools write weights as constants."""
        name = fact.operand.name
        copied = node.op_type == "Identity" and fact.parts == tuple(node.input)
        written = node.op_type == "Constant" and not self._has_weights
        self._facts[name] = replace(fact, parts=(name,)) if copied or written else fact
        if copied or written:
            self._offer(name)

    def _types(self, node: NodeProto, facts: dict[str, Fact]) -> dict[str, TypeProto]:
        try:
            types = infer(node, facts, self._opsets)
        except InferenceError as error:
            reason = str(error).splitlines()[0].removeprefix("[ShapeInferenceError] ")
            raise CaptureError(
                f"{self._path}: {_told(node)} does not fit what it is given ({reason}); check the file and --input."
            ) from error
        told = {name: kind for name, kind in types.items() if shape_of(kind) is not None}
        return {name: self._declared[name] for name in node.output if name in self._declared} | told

    def _shape(self, node: NodeProto, kind: TypeProto | None) -> Shape:
        shape = shape_of(kind)
        if shape is None:
            raise CaptureError(
                f"{self._path}: {_told(node)} makes a tensor whose shape cannot be told before the net runs; "
                "export the net with fixed sizes and without what follows the last layer."
            )
        return shape

    def _translate(self, node: NodeProto, types: dict[str, TypeProto]) -> None:
        last = max((place for place, name in enumerate(node.output) if name in self._used), default=0)
        outputs = list(node.output[: last + 1])
        outs = tuple(self._shape(node, types.get(name)) if name else () for name in outputs)
        facts = [self._facts[name] for name in node.input if name]
        op = Op(
            node.op_type,
            self._opsets.get("", 1),
            tuple(self._facts[name].operand if name else None for name in node.input),
            outs,
            {entry.name: _plain(helper.get_attribute_value(entry)) for entry in node.attribute},
            {fact.operand.name: fact.value for fact in facts if fact.value is not None},
        )
        calls, answers = _calls(op, node)
        self._write(node, calls)
        for name, answer in zip(outputs, answers, strict=False):
            if name:
                known = self._facts[answer.name] if answer.own else Fact(answer, types[name])
                self._facts[name] = replace(known, type=types[name])

    def _write(self, node: NodeProto, calls: list[tuple[str, Call]]) -> None:
        own = [operand for _, call in calls for operand in call.operands if operand.own]
        weights = [part for operand in own for part in self._facts[operand.name].parts]
        layer = any(call.op in RULES and RULES[call.op].kind for _, call in calls)
        module = module_of(node, weights, layer)
        for name, call in calls:
            made = Node(name, call, module, leaf=False, params=self._params(call), known=True)
            lost = not made.ruled or any(x.name in self._unknown for x in call.operands if not x.own)
            if lost:
                self._unknown.add(name)
            self._nodes.append(replace(made, known=not lost))

    def _params(self, call: Call) -> int:
        learned = Call(call.op, {key: value for key, value in call.args.items() if key not in STATISTICS}, call.outs)
        names = [part for x in learned.operands if x.own for part in self._facts[x.name].parts]
        return sum(self._sizes.pop(name, 0) for name in names)

    def graph(self, outputs: list[str], name: str) -> Graph:
        """What was read, as a captured model."""
        ends = [x.name for x in (self._facts[output].operand for output in outputs) if not x.own]
        nodes = with_leaves(with_bias(self._nodes, ends))
        calls = Counter(node.module for node in nodes if node.kind)
        params = sum(node.params for node in nodes)
        return Graph(
            name, self._inputs, tuple(nodes), tuple(ends), params,
            sequences={}, calls=calls, shared=frozenset(),
        )  # fmt: skip


def _calls(op: Op, node: NodeProto) -> tuple[list[tuple[str, Call]], list[Operand]]:
    """A node's calls by the names of what they make, and its outputs; one call that no rule knows where it declines."""
    calls: list[tuple[str, Call]] = []

    def emit(aten: str, /, *outs: Shape, **args: Any) -> Operand:
        name = f"{node.output[0]}#{len(calls)}" if calls else node.output[0]
        calls.append((name, Call(aten, args, outs)))
        return Operand(name, outs[0])

    try:
        if node.domain not in ("", "ai.onnx") or node.op_type not in TRANSLATIONS:
            raise Declined
        answer = TRANSLATIONS[node.op_type](op, emit)
    except Declined:
        calls.clear()
        tensors = [operand for operand in op.inputs if operand is not None]
        answer = emit(".".join(filter(None, ("onnx", node.domain, node.op_type))), *op.outs, tensors=tensors)
        return calls, [Operand(answer.name, shape) for shape in op.outs]
    return calls, answer if isinstance(answer, list) else [answer]


def _reads(node: NodeProto) -> Iterator[str]:
    """The names of the tensors a node reads, those that its inner graphs take from around it among them."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            inner = {name for child in attribute.g.node for name in _reads(child)}
            made = {name for child in attribute.g.node for name in child.output}
            made |= {value.name for value in attribute.g.input} | {tensor.name for tensor in attribute.g.initializer}
            yield from sorted(inner - made)


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _told(node: NodeProto) -> str:
    return f"{node.op_type} {node.name or node.output[0]!r}"
