"""The graph of an ONNX file, node by node."""

from collections import Counter
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, helper
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError

from convsmith.bounds import TENSOR
from convsmith.errors import CaptureError
from convsmith.graph.call import RULES, Call, Operand
from convsmith.graph.graph import Graph
from convsmith.graph.node import Node
from convsmith.graph.onnx.batch import check_same, for_batch, tied_to
from convsmith.graph.onnx.calls import FAULTS, Calls, calls_of, plain, reads, renamed, told
from convsmith.graph.onnx.facts import Fact, constant, fold, foldable, infer, shape_of, shape_only, stored
from convsmith.graph.onnx.file import Given, bindings, declared, fixed_batch, inputs_of, read
from convsmith.graph.onnx.names import module_of
from convsmith.graph.onnx.op import SIZES, TRANSLATIONS, Declined, Misfit, Op, Shape, name_of
from convsmith.graph.onnx.quantized import lowered
from convsmith.graph.onnx.tidy import with_bias, with_leaves

STATISTICS = ("running_mean", "running_var")  # arguments that no training changes by gradients
WHOLE = (TensorProto.INT64, TensorProto.BOOL)  # types of sizes, indices and masks
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
COMPUTED = 1 << 24  # numbers of constants that are computed and kept, over all of a file
COPY = "aten.clone.default"  # of an output that is one of the model's own tensors
KIND = "pkg.torch.export.graph_signature.InputSpec.kind"  # PARAMETER or BUFFER, written by torch's exporter


def capture_onnx(path: str | Path, input: Given = None, name: str = "") -> Graph:
    """Capture the net in an ONNX file, at batch 1.

    input: (channels, *map) of the first input, or shapes by the inputs' names, needed where the file leaves sizes open.
    A file whose batch is fixed at another number is read for one image, where its ops allow it. Quantized ops are read
    as the float ops they stand for. An op without a translation appears as `onnx.NAME`: it has no rule, and nothing
    behind it is guessed. So does what stands behind a size that depends on values. Parameters are the file's tensors
    that are neither whole numbers, single numbers nor running statistics, as an exporter stored them. Folding a
    normalization into a convolution changes their count, and layers, MACs and reach stay. Raises ConvsmithError when
    the file is missing or no ONNX file, has no or other sizes, or cannot be read through.
    """
    path = Path(path)
    model = read(path)
    fixed = fixed_batch(model)
    whole = _read(path, model, input, fixed, fixed)
    if fixed == 1:
        return whole.graph(model, name or path.name)
    with tied_to(fixed, path):
        single = _read(path, model, input, 1, fixed)
    check_same(whole.graph(model, name), single.graph(model, name), fixed, path)
    return single.graph(model, name or path.name)


def _read(path: Path, model: ModelProto, input: Given, batch: int, fixed: int) -> "_Reader":
    reader = _Reader(path, model, inputs_of(model, input, path, batch), fixed // batch)
    for node in model.graph.node:
        reader.take(node)
    return reader


class _Reader:
    """Takes nodes in order and keeps what is known of every tensor so far."""

    def __init__(self, path: Path, model: ModelProto, inputs: dict[str, TypeProto], fewer: int) -> None:
        """fewer: how many times fewer images it is read for than the file's own batch."""
        self._path, self._fewer = path, fewer
        self._opsets = {"" if e.domain == "ai.onnx" else e.domain: e.version for e in model.opset_import}
        self._declared = declared(model, bindings(model, inputs))
        self._kinds = {v.name: e.value for v in model.graph.value_info for e in v.metadata_props if e.key == KIND}
        self._used = {name for node in model.graph.node for name in reads(node)}
        self._used.update(value.name for value in model.graph.output)
        self._inputs = tuple(Operand(key, shape_of(kind) or ()) for key, kind in inputs.items())
        self._facts = {x.name: Fact(x, inputs[x.name]) for x in self._inputs}
        self._sizes: dict[str, int] = {}  # of parameters that no call has used yet
        self._nodes: list[Node] = []
        self._names: set[str] = set(inputs)
        self._room = COMPUTED
        self._unknown: set[str] = set()
        self._has_weights = any(tensor.data_type not in WHOLE and tensor.dims for tensor in model.graph.initializer)
        self._keep(model.graph)

    def _keep(self, graph: GraphProto) -> None:
        for tensor in graph.initializer:
            self._facts[tensor.name] = self._stored(tensor)
            self._offer(tensor.name)
        for sparse in graph.sparse_initializer:
            shape = tuple(sparse.dims)
            kind = helper.make_tensor_type_proto(sparse.values.data_type, shape)
            name = sparse.values.name
            self._facts[name] = Fact(Operand(name, shape, own=True), kind, parts=(name,))
            self._offer(name)

    def _stored(self, tensor: TensorProto) -> Fact:
        try:
            return stored(tensor, self._path.parent)
        except (OSError, ValidationError, RuntimeError, *FAULTS) as error:
            raise CaptureError(
                f"{self._path}: the numbers of {tensor.name} cannot be read; keep the file of its weights beside it."
            ) from error

    def _offer(self, name: str) -> None:
        """Count a stored tensor as parameters once a call uses it."""
        fact, kind = self._facts[name], self._kinds.get(name)
        learned = fact.type.tensor_type.elem_type not in WHOLE and fact.operand.shape
        if kind == "PARAMETER" or (kind is None and learned):
            self._sizes[name] = prod(fact.operand.shape)

    def take(self, node: NodeProto) -> None:
        """Compute a node, if it is constant, else translate it; a quantized one as the float nodes it stands for."""
        for each in lowered(node):
            self._take(each)

    def _take(self, node: NodeProto) -> None:
        missing = [name for name in reads(node) if name not in self._facts]
        if missing:
            raise CaptureError(f"{self._path}: {told(node)} reads {missing[0]!r}, which nothing makes; write it anew.")
        if not any(node.output):
            return  # nothing reads it
        facts = for_batch(node, {name: self._facts[name] for name in reads(node)}, self._fewer)
        if node.op_type == "If" and not node.domain and facts[node.input[0]].value is not None:
            self._branch(node, bool(np.all(facts[node.input[0]].value)))
        elif not (shape_only(node, facts) and self._fold(node, facts)):
            types = self._types(node, facts)
            if not (self._room > 0 and foldable(node, facts, types) and self._fold(node, facts)):
                own = all(fact.operand.own for fact in facts.values())
                (self._compute if own else self._translate)(node, facts, types)

    def _branch(self, node: NodeProto, taken: bool) -> None:
        branches = [a.g for a in node.attribute if a.name == ("then_branch" if taken else "else_branch")]
        if len(branches) != 1 or len(branches[0].output) != len(node.output):
            raise self._misfit(node, "its branches do not make what it makes")
        self._keep(branches[0])
        for inner in branches[0].node:
            self._used.update(reads(inner))
        self._used.update(value.name for value in branches[0].output)
        for inner in branches[0].node:
            self.take(inner)
        for name, value in zip(node.output, branches[0].output, strict=True):
            if value.name not in self._facts:
                raise self._misfit(node, f"nothing makes {value.name!r}")
            self._facts[name] = self._facts[value.name]

    def _misfit(self, node: NodeProto, why: str) -> CaptureError:
        return CaptureError(
            f"{self._path}: {told(node)} does not fit what it is given ({why}); check the file and --input."
        )

    def _fold(self, node: NodeProto, facts: dict[str, Fact]) -> bool:
        values = fold(node, facts, self._opsets)
        if values is None:
            return False
        self._room -= sum(value.size for value in values)
        parts = [] if node.op_type in ("Shape", "Size") else self._parts(node, facts)
        for name, value in zip(filter(None, node.output), values, strict=True):
            self._own(node, constant(name, value, parts))
        return True

    def _parts(self, node: NodeProto, facts: dict[str, Fact]) -> tuple[str, ...]:
        """The stored tensors that a tensor of the model's own is made of; a quantizer's steps are none."""
        if any(fact.step for fact in facts.values()):
            return ()
        read = facts.values() if node.op_type not in QUANTIZERS else [facts[node.input[0]]]
        return tuple(part for fact in read for part in fact.parts)

    def _compute(self, node: NodeProto, facts: dict[str, Fact], types: dict[str, TypeProto]) -> None:
        """A tensor of the model's own that is too large to compute here."""
        parts, step = self._parts(node, facts), any(fact.step for fact in facts.values())
        for name in filter(None, node.output):
            kind = types.get(name, TypeProto())
            operand = Operand(name, self._shape(node, kind), own=True)
            self._own(node, Fact(operand, kind, parts=parts, step=step))

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
            types = self._stated(node, facts)
            if types.keys() < {name for name in node.output if name}:
                types = infer(node, facts, self._opsets) | types
        except (InferenceError, ValidationError, Misfit, RuntimeError, *FAULTS) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise self._misfit(node, reason.removeprefix("[ShapeInferenceError] ")) from error
        known = {name: kind for name, kind in types.items() if shape_of(kind) is not None}
        return {name: self._declared[name] for name in node.output if name in self._declared} | known

    def _stated(self, node: NodeProto, facts: dict[str, Fact]) -> dict[str, TypeProto]:
        """What the op's translation says of its shapes."""
        if name_of(node) not in SIZES or any(fact.open for fact in facts.values()):
            return {}
        try:
            sizes = SIZES[name_of(node)](self._op(node, ()))
        except Declined:
            return {}
        element = facts[node.input[0]].type.tensor_type.elem_type
        shapes = sizes if isinstance(sizes, list) else [sizes]
        return {
            name: helper.make_tensor_type_proto(element, shape)
            for name, shape in zip(node.output, shapes, strict=False)
        }

    def _shape(self, node: NodeProto, kind: TypeProto | None) -> Shape:
        """A tensor's sizes; none where they depend on values, and its type then says so."""
        shape = shape_of(kind)
        if shape is None and node.domain not in ("", "ai.onnx"):
            lacks = "has a translation that states no shape" if name_of(node) in TRANSLATIONS else "has no translation"
            raise CaptureError(
                f"{self._path}: {told(node)} makes a tensor of unknown shape: {name_of(node)} {lacks}, and the "
                "file does not say it; write the file with its shapes, or state them by "
                f'translates("{name_of(node)}", shape=..).'
            )
        if any(size < 0 for size in shape or ()) or prod(shape or ()) > TENSOR:
            raise self._misfit(node, f"it would make a tensor of {'x'.join(map(str, shape or ()))}")
        return shape or ()

    def _op(self, node: NodeProto, outs: tuple[Shape, ...]) -> Op:
        facts = [self._facts[name] for name in node.input if name]
        return Op(
            node.op_type,
            self._opsets.get("", 1),
            tuple(self._facts[name].operand if name else None for name in node.input),
            outs,
            {entry.name: plain(helper.get_attribute_value(entry)) for entry in node.attribute},
            {fact.operand.name: fact.value for fact in facts if fact.value is not None},
            frozenset(fact.operand.name for fact in facts if fact.step),
        )

    def _translate(self, node: NodeProto, facts: dict[str, Fact], types: dict[str, TypeProto]) -> None:
        last = max((place for place, name in enumerate(node.output) if name in self._used), default=0)
        outputs = list(node.output[: last + 1])
        outs = tuple(self._shape(node, types.get(name)) if name else () for name in outputs)
        known = not any(fact.open for fact in facts.values()) and all(
            shape_of(types.get(name)) is not None for name in outputs if name
        )
        try:
            calls, answers = calls_of(self._op(node, outs), node, known)
        except (Misfit, *FAULTS) as error:
            raise self._misfit(node, str(error)) from error
        calls, answers = self._named(calls, answers)
        self._write(node, calls)
        for name, answer in zip(outputs, answers, strict=False):
            if name:
                kind = types.get(name, TypeProto())
                old = self._facts.get(answer.name)
                made = Fact(answer, kind, step=True) if old is None else old
                self._facts[name] = replace(made, type=kind) if answer.own else Fact(answer, kind)
                if answer.own:
                    self._facts.setdefault(answer.name, made)

    def _named(self, calls: Calls, answers: list[Operand]) -> tuple[Calls, list[Operand]]:
        """Calls under names that none has yet: two branches may use one name."""
        clash = {name: f"{name}~{len(self._nodes)}" for name, _ in calls if name in self._names}
        self._names.update(clash.get(name, name) for name, _ in calls)
        if not clash:
            return calls, answers
        return [(clash.get(n, n), renamed(c, clash)) for n, c in calls], [renamed(a, clash) for a in answers]

    def _write(self, node: NodeProto, calls: Calls) -> None:
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
        return sum(self._count(x, part) for x in learned.operands if x.own for part in self._facts[x.name].parts)

    def _count(self, operand: Operand, part: str) -> int:
        """A stored tensor's numbers that nothing has counted yet; of one packed into bytes, those it stands for."""
        size = self._sizes.pop(part, 0)
        return max(size, prod(operand.shape)) if size and part == operand.name else size

    def graph(self, model: ModelProto, name: str) -> Graph:
        """What was read, as a captured model; every output of the file is one of the graph."""
        missing = [value.name for value in model.graph.output if value.name not in self._facts]
        if missing or not model.graph.output:
            what = f"nothing makes its output {missing[0]!r}" if missing else "it has no output"
            raise CaptureError(f"{self._path}: {what}; write it anew.")
        ends = [self._facts[value.name].operand for value in model.graph.output]
        own = [Node(x.name, Call(COPY, {"self": x}, (x.shape,)), "", leaf=False, params=0, known=True)
               for x in dict.fromkeys(ends) if x.own]  # fmt: skip
        nodes = with_leaves(with_bias([*self._nodes, *own], [x.name for x in ends]))
        calls = Counter(node.module for node in nodes if node.kind)
        params = sum(node.params for node in nodes)
        return Graph(
            name, self._inputs, tuple(nodes), tuple(x.name for x in ends), params,
            sequences={}, calls=calls, shared=frozenset(),
        )  # fmt: skip
