"""A net made of a .pt2 file's graph: it runs the calls one by one, each in the module that made it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from convsmith.pt2.archive import DTYPES, UnsafeError
from convsmith.pt2.steps import Body, Step, Values, filled, run, steps_of
from convsmith.pt2.values import Ref, kind_of, value_of

# How the graph's signature names what a tensor of the net's own is, and under which key it has its path.
OWN = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}


@dataclass(frozen=True)
class Input:
    """What the net reads: a shape, None where the file leaves a size open, and a type of number."""

    shape: tuple[int | None, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> "Input":
        """Read what the file tells of a tensor; a size that is an expression is open."""
        return cls(tuple(size.get("as_int") for size in meta["sizes"]), DTYPES[meta["dtype"]])

    def check(self, name: str, given: Tensor) -> None:
        """Raise ValueError on a tensor of another shape."""
        same = len(self.shape) == given.ndim and all(
            expected is None or expected == got for expected, got in zip(self.shape, given.shape, strict=False)
        )
        if not same:
            expected, got = ("x".join("?" if size is None else str(size) for size in sizes)
                        for sizes in (self.shape, given.shape))  # fmt: skip
            raise ValueError(f"its input {name!r} is {expected}, and was given {got}")


def inputs_of(program: ExportedProgram) -> dict[str, Input]:
    """The inputs of a program that torch has loaded."""
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    return {
        str(name): Input(tuple(s if isinstance(s, int) else None for s in values[name].shape), values[name].dtype)
        for name in program.graph_signature.user_inputs
        if isinstance(values.get(name), Tensor)
    }


class Scope(nn.Module):
    """A module of the net that the file was made from: its tensors, its children, and the calls made in it."""

    def forward(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Make one call."""
        return function(*args, **kwargs)


class Program(nn.Module):
    """A net of a file's calls; `inputs` tells what it reads, and it answers its output, or a list of several.

    Raises ValueError, KeyError and the like on a broken graph, UnsafeError on one that calls what is not listed.
    """

    def __init__(self, record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        graph, signature = (record["graph_module"][key] for key in ("graph", "signature"))
        self.inputs: dict[str, Input] = {}
        self._held: dict[str, tuple[dict[str, Any], str]] = {}  # where the graph's names for own tensors lie
        self._twins: dict[Any, nn.Parameter] = {}
        outputs = [kind_of(spec) for spec in signature["output_specs"]]
        self._answers = [value_of(content["arg"]) for kind, content in outputs if kind == "user_output"]
        self._steps = tuple(steps_of(graph, self._answers))
        self._scopes: dict[str, nn.Module] = {}
        for spec in signature["input_specs"]:
            self._enter(*kind_of(spec), graph["tensor_values"], tensors)
        self._scopes.update((path, self._scope(path)) for path in _paths(self._steps))

    def forward(self, *images: Tensor) -> Any:
        """Run the calls on inputs of the shapes that the file tells."""
        if len(images) != len(self.inputs):
            raise ValueError(f"it reads {len(self.inputs)} inputs, and was given {len(images)}")
        for (name, wanted), image in zip(self.inputs.items(), images, strict=True):
            wanted.check(name, image)
        values: Values = {name: holder[key] for name, (holder, key) in self._held.items()}
        values |= dict(zip(self.inputs, images, strict=True))
        run(self._steps, values, self._call)
        answers = [filled(answer, values, self._call) for answer in self._answers]
        return answers[0] if len(answers) == 1 else answers

    def _call(self, step: Step, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if not step.path:
            return step.function(*args, **kwargs)
        return self._scopes[step.path](step.function, args, kwargs)

    def _enter(
        self, kind: str, content: Mapping[str, Any], metas: Mapping[str, Any], own: Mapping[str, Tensor]
    ) -> None:
        """Enter one input of the graph: a tensor of the net's own, or one that the user gives."""
        if kind in OWN:
            self._hold(kind, content["arg"]["name"], content[OWN[kind]], own[content[OWN[kind]]])
        elif kind == "user_input":
            given = value_of(content["arg"])
            if not isinstance(given, Ref) or given.name not in metas:
                raise UnsafeError("an input that is no tensor")
            self.inputs[given.name] = Input.of(metas[given.name])
        else:
            raise UnsafeError(f"an input of kind {kind[:40]}")

    def _hold(self, kind: str, name: str, path: str, tensor: Tensor) -> None:
        folder, _, key = path.rpartition(".")
        scope = self._scope(folder)
        if kind == "parameter":
            memory = tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
            made = nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
            scope._parameters[key] = self._twins.setdefault(memory, made) if tensor.numel() else made
            self._held[name] = scope._parameters, key
        else:
            scope._buffers[key] = tensor
            self._held[name] = scope._buffers, key

    def _scope(self, path: str) -> nn.Module:
        """The module at a path, made where there is none; names that nn.Module has itself are as good as others."""
        here: nn.Module = self
        for name in filter(None, path.split(".")):
            inner = here._modules.get(name) or Scope()
            here._modules[name] = inner
            here = inner
        return here


def _paths(steps: Sequence[Step]) -> set[str]:
    """The modules that calls are made in, those of graphs inside the graph too."""
    inside = (value for step in steps for value in step.args if isinstance(value, Body))
    return {step.path for step in steps if step.path} | {path for body in inside for path in _paths(body.steps)}
