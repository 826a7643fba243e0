"""The calls that one node of a file is read as."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Any

from onnx import NodeProto

from convsmith.bounds import FLAT, SIDE, TENSOR
from convsmith.graph.call import RULES, Call, Operand
from convsmith.graph.node import GETITEM
from convsmith.graph.onnx.op import TRANSLATIONS, Declined, Misfit, Op, Shape, name_of

# What a translation raises on a node that lacks an attribute, or has one of another kind.
FAULTS = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError)
TAPS = 1 << 24  # elements of one axis that a kernel reads, over all of its places
REORDERING = ("aten.reshape", "aten.permute", "aten.matmul")  # ops whose dimensions need not be a map's
PARTS = 1 << 12  # calls, or tensors, that one node may become

Calls = list[tuple[str, Call]]


def calls_of(op: Op, node: NodeProto, known: bool) -> tuple[Calls, list[Operand]]:
    """A node's calls by the names of what they make, and its outputs; one call that no rule knows where it declines.

    known: whether all of its sizes are; else it is not translated.
    Raises Misfit where the node's tensors and attributes do not fit each other, or are larger than any net's.
    """
    calls: Calls = []

    def emit(aten: str, /, *outs: Shape, **args: Any) -> Operand:
        name = f"{node.output[0]}#{len(calls)}" if calls else node.output[0]
        calls.append((name, _sound(Call(aten, args, outs))))
        if len(calls) > PARTS:
            raise Declined
        return Operand(name, outs[0])

    try:
        if not known or name_of(node) not in TRANSLATIONS:
            raise Declined
        answer = TRANSLATIONS[name_of(node)](op, emit)
        answers = answer if isinstance(answer, list) else [answer]
        if len(answers) < len(op.outs):
            raise Declined  # it makes what the translation does not know of
    except Declined:
        calls.clear()
        return calls, _unknown(op, node, known, emit)
    except FAULTS as error:
        raise Misfit(f"{type(error).__name__}: {error}") from error
    return calls, answers


def _unknown(op: Op, node: NodeProto, known: bool, emit: Any) -> list[Operand]:
    """One call by the op's own name, and where it makes several tensors, one more that takes each."""
    tensors = [operand for operand in op.inputs if operand is not None]
    why = "" if known or name_of(node) not in TRANSLATIONS else " of a size that depends on values"
    made = emit(f"onnx.{name_of(node)}{why}", *op.outs, tensors=tensors)
    if len(op.outs) == 1:
        return [made]
    return [emit(GETITEM, shape, self=made, index=place) for place, shape in enumerate(op.outs)]


def _sound(call: Call) -> Call:
    """A call that can be answered for: no size below 0, none that takes more memory than a machine has."""
    for shape in call.outs:
        if _endless(shape, sides=not call.op.startswith(REORDERING)):
            raise Misfit(f"it would make a tensor of {'x'.join(map(str, shape))}")
    if call.op == "aten.reshape.default" and prod(call.out) != prod(call.input.shape):
        raise Misfit(f"{prod(call.input.shape)} elements do not fill a tensor of {'x'.join(map(str, call.out))}")
    if call.op in RULES and RULES[call.op].macs(call) < 0:
        raise Misfit("it would take less than no work")
    for kernel, out in zip(_kernel(call), reversed(call.out), strict=False):
        if kernel * out > TAPS:
            raise Misfit(f"its kernel of {kernel} has {out} places")
    return call


def _endless(shape: Shape, sides: bool) -> bool:
    """Whether a tensor has a size below 0, or more than any net's; sides: whether it may be a map."""
    if min(shape, default=0) < 0 or prod(shape) > TENSOR or max(shape[1:], default=0) > FLAT:
        return True
    return sides and max(shape[2:], default=0) > SIDE


def _kernel(call: Call) -> list[int]:
    """The sides of a window that slides, the last axis first."""
    if call.op in RULES and RULES[call.op].kind == "conv":
        return list(reversed(call["weight"].shape[2:]))
    return list(reversed(call.args.get("kernel_size", ())))


def reads(node: NodeProto) -> Iterator[str]:
    """The names of the tensors a node reads, those that its inner graphs take from around it among them."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            inner = {name for child in graph.node for name in reads(child)}
            inner |= {value.name for value in graph.output}
            made = {name for child in graph.node for name in child.output}
            made |= {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
            yield from sorted(inner - made)


def renamed(what: Any, names: Mapping[str, str]) -> Any:
    """An operand, or a call with its operands, under other names."""
    if isinstance(what, Operand):
        return what if what.own else replace(what, name=names.get(what.name, what.name))
    if isinstance(what, Call):
        return Call(what.op, {key: renamed(value, names) for key, value in what.args.items()}, what.outs)
    return [renamed(each, names) for each in what] if isinstance(what, list | tuple) else what


def plain(value: Any) -> Any:
    """An attribute's value, texts decoded."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def told(node: NodeProto) -> str:
    """How a message calls a node."""
    return f"{node.op_type} {node.name or next(iter(node.output), '')!r}"
