"""Capture a model: run it on inputs that have a shape and no values, and read the tape as a graph."""

import inspect
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from convsmith.errors import CaptureError
from convsmith.graph.graph import Graph
from convsmith.graph.plain import plain
from convsmith.graph.tracer import META, Tape
from convsmith.kernels.spec import is_plain
from convsmith.text import times

# What a model's forward is seen to raise.
FORWARD_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError, ArithmeticError,
)  # fmt: skip


def capture(model: nn.Module, *inputs: Tensor, name: str = "", batch: int = 1) -> Graph:
    """Capture `model` as it runs in evaluation mode on `inputs` (batch first, of any size).

    What depends on the inputs has shapes only, on the meta device: memory and time do not grow with resolution. What
    does not (weights, tables made in passing) keeps its values. The model is left as it was. Old weight_norm,
    spectral_norm and pruning masks are read as the weights that they make, under the layer's own name.
    batch: images at once. All counts of a net are for 1; more are for running the calls again on such batches.
    Raises ConvsmithError when it does not run on these inputs, or asks for a value that depends on them.

    >>> graph = capture(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.zeros(1, 3, 8, 8))
    >>> [(node.module, node.call.op, node.macs) for node in graph.nodes]
    [('0', 'aten.conv2d.default', 7776), ('1', 'aten.relu.default', 0)]
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise CaptureError(
            f"{type(model).__name__} is TorchScript, which hides its calls; give the model it was made from."
        )
    model = plain(model)
    tape = Tape(model)
    sources = [torch.empty(batch, *x.shape[1:], dtype=x.dtype, device=META) for x in inputs]
    named = tuple(tape.source(x, label) for x, label in zip(sources, _labels(model, len(inputs)), strict=True))
    try:
        with ExitStack() as stack:
            for each in (_left_as_it_is(model), _evaluated(model), tape.watching(model), torch.inference_mode(), tape):
                stack.enter_context(each)
            answer = model(*sources)
    except FORWARD_ERRORS as error:
        raise CaptureError(_why_not(model, inputs, error)) from error
    leaves = (leaf for leaf in tree_leaves(answer) if isinstance(leaf, Tensor))
    outputs = tuple(operand.name for operand in map(tape.operand, leaves) if not operand.own)
    return Graph(
        name or type(model).__name__,
        named,
        tuple(tape.nodes),
        outputs,
        sum(p.numel() for p in model.parameters()),
        {path: tuple(m._modules) for path, m in model.named_modules() if isinstance(m, nn.Sequential)},
        Counter(node.module for node in tape.nodes if node.kind and node.leaf),
        frozenset(_sharing(model)),
        frozenset(path for path, module in model.named_modules() if is_plain(module)),
        tape.constants,
        tape.aside,
    )


def _labels(model: nn.Module, count: int) -> list[str]:
    """The names of forward's arguments where it has so many, numbers behind the first one's name otherwise."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    plain = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [*plain, *(f"input_{i}" for i in range(len(plain), count))][:count]


def _why_not(model: nn.Module, inputs: tuple[Tensor, ...], error: Exception) -> str:
    shapes = ", ".join(times(x.shape[1:]) for x in inputs)
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if "meta tensors" in reason or "meta tensor" in reason:
        reason = f"its forward asks for a value that depends on the input ({reason.rstrip('.')})"
    return (
        f"{type(model).__name__} cannot be captured on input {shapes}: {reason}; check --input and the model's forward."
    )


@contextmanager
def _left_as_it_is(model: nn.Module) -> Iterator[None]:
    """Take back what forward sets on its modules: modes, buffers, tables kept for the next run."""
    modules = list(model.modules())
    kept = [(dict(vars(module)), dict(module._buffers)) for module in modules]
    try:
        yield
    finally:
        for module, (attributes, buffers) in zip(modules, kept, strict=True):
            for name in vars(module).keys() - attributes.keys():
                del vars(module)[name]
            vars(module).update(attributes)
            module._buffers.clear()
            module._buffers.update(buffers)


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; attention in its plain form, which has rules, instead of the fused one."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        model.eval()
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _sharing(model: nn.Module) -> Iterator[str]:
    owners: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(path)
    for paths in owners.values():
        if len(paths) > 1:
            yield from paths
