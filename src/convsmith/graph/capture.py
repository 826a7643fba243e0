"""Capture a model: run it, on shapes alone where its forward reads no values, and read the tape as a graph."""

import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from convsmith.bounds import NUMBERED
from convsmith.errors import CaptureError
from convsmith.garbage import kept_back
from convsmith.graph.answers import answered
from convsmith.graph.call import Operand
from convsmith.graph.executions import Execution, OnNumbers, OnShapes
from convsmith.graph.graph import Graph
from convsmith.graph.growth import META
from convsmith.graph.plain import plain
from convsmith.graph.restoring import left_as_it_is
from convsmith.graph.signature import Signature, given
from convsmith.graph.tracer import Tape
from convsmith.graph.wrappers import uninitialized, unwrapped
from convsmith.kernels.spec import is_plain
from convsmith.text import times

# What a model's forward is seen to raise.
FORWARD_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError, ArithmeticError,
)  # fmt: skip
# What torch says where a value is asked of a tensor on the meta device.
NO_VALUES = ("meta tensor", "Meta tensor", "register_meta function", "meta device type tensor to numpy")
NO_TENSOR = "It answers no tensor that depends on the input: what no call reads is taken as its outputs."
LOOSE = "Behind {} sizes depend on values: calls there are counted for this input, and what they see is unknown."
# Whose code a forward is not.
MACHINERY = (Path(torch.__file__).parent, Path(__file__).parent)


@kept_back()
def capture(model: nn.Module, *inputs: Any, name: str = "", batch: int = 1, **named: Any) -> Graph:
    """Capture a model: run it once in evaluation mode on shapes, and keep its calls as a graph.

    What depends on the inputs has shapes only, on the meta device. Memory and time do not grow with the resolution.
    What does not depend on them (weights, tables made in passing) keeps its values. The model is left as it was, but
    for lazy modules, which it runs once. Old weight_norm, spectral_norm and pruning masks are read as the weights that
    they make, under the layer's own name. Where forward reads values that depend on the inputs, it is run on their
    numbers instead, and the graph's `notes` say so. Where sizes depend on values, it is counted, but not followed.

    Args:
        model: Any module.
        *inputs: Tensors as forward takes them, batch first, in lists and dictionaries too. The batch may have any
            size, and values hardly ever matter.
        name: What to call the net in tables and plans; by default the name of its class.
        batch: Images at once. All counts of a net are for 1; more serve to run the calls again on such batches.
        **named: Inputs by the names of forward's arguments.

    Returns:
        The graph that all planning starts from.

    Raises:
        ConvsmithError: When the model does not run on these inputs.

    >>> graph = capture(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.zeros(1, 3, 8, 8))
    >>> [(node.module, node.call.op, node.macs) for node in graph.nodes]
    [('0', 'aten.conv2d.default', 7776), ('1', 'aten.relu.default', 0)]
    """
    model = plain(unwrapped(model))
    signature = Signature.of(model, inputs, named)
    home = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    _run_lazy(model, signature, home)
    sources = [torch.empty(_laid_out(slot, batch), dtype=slot.dtype, device=META) for slot in signature.slots]
    try:
        return _Run(model, OnShapes(home), signature, sources, name).graph()
    except FORWARD_ERRORS as error:
        on_shapes = error
    if any(tensor.is_meta for tensor in model.state_dict().values()):
        raise CaptureError(_why_not(model, signature, on_shapes)) from on_shapes
    note = _read_values(on_shapes)
    if sum(x.numel() for x in sources) > NUMBERED:
        raise CaptureError(
            f"{type(model).__name__}: {note[0].lower()}{note[1:-1]}, which takes at most {NUMBERED:,}; give a smaller "
            "--input."
        ) from on_shapes
    for numbers in _numbers(given(inputs, named), signature, batch, home):
        try:
            return _Run(model, OnNumbers(type(model).__name__), signature, numbers, name, (note,)).graph()
        except FORWARD_ERRORS as error:
            on_numbers = error
    raise CaptureError(_why_not(model, signature, on_numbers)) from on_numbers


class _Run:
    """One run of a model under a tape, and what is read from it."""

    def __init__(
        self,
        model: nn.Module,
        execution: Execution,
        signature: Signature,
        sources: Sequence[Tensor],
        name: str,
        notes: tuple[str, ...] = (),
    ) -> None:
        self._model, self._signature, self._name, self._notes = model, signature, name, notes
        self._tape = tape = Tape(model, execution)
        pairs = list(zip(sources, signature.slots, strict=True))
        self._inputs = tuple(tape.source(x, slot.name) for x, slot in pairs)
        contexts = (left_as_it_is(model), _evaluated(model), tape.running.watched(), torch.inference_mode(), tape)
        with ExitStack() as stack:
            for each in contexts:
                stack.enter_context(each)
            args, kwargs = signature.call([x if slot.batched or x.dim() < 2 else x[0] for x, slot in pairs])
            self._answer = answered(model(*args, **kwargs))

    def graph(self) -> Graph:
        """What was captured."""
        model, tape = self._model, self._tape
        outputs, notes = self._outputs(), self._notes
        if not outputs and tape.nodes:
            outputs, notes = _unread(tape), (*notes, NO_TENSOR)
        notes += _loose(tape)
        return Graph(
            self._name or type(model).__name__,
            self._inputs,
            tuple(tape.nodes),
            outputs,
            sum(p.numel() for p in tape.parameters.values()),
            {path: tuple(m._modules) for path, m in tape.modules.items() if isinstance(m, nn.Sequential)},
            Counter(node.module for node in tape.nodes if node.kind and node.leaf),
            frozenset(_sharing(model)),
            frozenset(path for path, module in tape.modules.items() if is_plain(module)),
            tape.constants,
            tape.tables.total(),
            self._signature,
            notes,
            frozenset(tape.tables),
            _functional(tape),
            frozenset(tape.parameters),
        )

    def _outputs(self) -> tuple[str, ...]:
        operands: list[Operand] = [self._tape.operand(x) for x in self._answer]
        return tuple(operand.name for operand in operands if not operand.own)


def _unread(tape: Tape) -> tuple[str, ...]:
    read = {x.name for node in tape.nodes for x in node.call.operands}
    return tuple(node.name for node in tape.nodes if node.name not in read)


def _loose(tape: Tape) -> tuple[str, ...]:
    """Where a graph is followed no further."""
    loose = {node.name for node in tape.nodes if node.loose}
    firsts = (n for n in tape.nodes if n.loose and loose.isdisjoint(x.name for x in n.call.operands))
    ops = ", ".join(dict.fromkeys(node.call.op for node in firsts))
    return (LOOSE.format(ops),) if ops else ()


def _functional(tape: Tape) -> Mapping[str, str]:
    """By call, the parameter that convolves, where no convolution module of torch's holds it."""
    calls = [node for node in tape.nodes if node.kind == "conv" and node.call["weight"].name in tape.parameters]
    own = [node for node in calls if not isinstance(tape.modules[node.module], _ConvNd)]
    return {node.name: node.call["weight"].name for node in own}


def _laid_out(slot: Any, batch: int) -> tuple[int, ...]:
    """A source's shape: one that came without a batch gets one, which the capture's first call takes off again."""
    return slot.sized(batch) if slot.batched or len(slot.shape) < 2 else (1, *slot.shape)


def _numbers(tensors: Sequence[Tensor], signature: Signature, batch: int, home: torch.device) -> Iterator[list[Tensor]]:
    """Inputs for a run on numbers: those that were given, then others that are drawn, the same in every run."""
    shapes = [_laid_out(slot, batch) for slot in signature.slots]
    if not any(tensor.is_meta for tensor in tensors):
        firsts = [x[:1] if slot.batched else x for x, slot in zip(tensors, signature.slots, strict=True)]
        yield [x.detach().to(home).expand(shape).clone() for x, shape in zip(firsts, shapes, strict=True)]
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.rand(shape, generator=generator) for shape in shapes]
    yield [x.to(home, slot.dtype) for x, slot in zip(drawn, signature.slots, strict=True)]


def _run_lazy(model: nn.Module, signature: Signature, home: torch.device) -> None:
    """Run lazy modules that never ran, as their user would: on an image, in evaluation mode."""
    lazy = uninitialized(model)
    if not lazy:
        return
    args, kwargs = signature.call(signature.tensors(device=home))
    modes = [(module, module.training) for module in model.modules()]
    try:
        with _evaluated(model), torch.no_grad():
            model(*args, **kwargs)
    except FORWARD_ERRORS as error:
        raise CaptureError(_why_not(model, signature, error)) from error
    finally:
        for module, training in modes:
            module.training = training
    if lazy := uninitialized(model):
        raise CaptureError(
            f"{type(model).__name__}: {lazy[0]} is lazy and did not run on this input, so its weights have no shape; "
            "run the model once on an input that uses it."
        )


def _read_values(error: Exception) -> str:
    """What a graph says of itself that was captured on numbers."""
    said = "Its forward reads values of the input" if _asks_for_values(error) else "It does not run on shapes alone"
    reason = "" if _asks_for_values(error) else f": {_reason(error)}"
    return f"{said}{_place(error)}{reason}; it was run on numbers, and sizes and branches are those of this input."


def _why_not(model: nn.Module, signature: Signature, error: Exception) -> str:
    shapes = ", ".join(times(slot.shape[slot.batched :]) for slot in signature.slots)
    return (
        f"{type(model).__name__} cannot be captured on input {shapes}: {_reason(error)}{_place(error)}; check --input "
        "and the model's forward."
    )


def _reason(error: Exception) -> str:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return "its forward asks for a value that depends on the input" if _asks_for_values(error) else reason.rstrip(".")


def _asks_for_values(error: Exception) -> bool:
    return any(words in str(error) for words in NO_VALUES)


def _place(error: Exception) -> str:
    """Where in the user's code it was raised: the innermost line that is neither torch's nor ours."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not any(Path(f.filename).is_relative_to(folder) for folder in MACHINERY)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno}, in {own[-1].name})" if own else ""


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; attention in its plain form, which has rules, instead of the fused one; nothing compiled."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # Modules of exported programs refuse eval(), which they do not need; as of the class it still reaches children.
        nn.Module.train(model, False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _sharing(model: nn.Module) -> Iterator[str]:
    owners: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(path)
    for paths in owners.values():
        if len(paths) > 1:
            yield from paths
