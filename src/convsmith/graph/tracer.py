"""The tape that a capture writes: every ATen call that depends on the inputs, with its module, made on shapes alone."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from convsmith.graph.aliases import Aliases
from convsmith.graph.call import RULES, Call, Operand
from convsmith.graph.graph import GETITEM, Node

META = torch.device("meta")

# What they make has a tensor's shape and nothing of its values.
SHAPE_ONLY = frozenset(
    f"aten.{op}.default"
    for op in (
        "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like",
        "new_zeros", "new_ones", "new_full", "new_empty",
    )
)  # fmt: skip


@dataclass(frozen=True)
class _Value:
    """What a tensor stands for: an operand, or one output of a call that has several and must be taken from it."""

    operand: Operand
    index: int | None = None
    module: str = ""  # of the call that made it
    written: str = ""  # the call that wrote into its elements through another view


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The calls that depend on the inputs, in order."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nodes: list[Node] = []
        self.constants: dict[str, Tensor] = {}
        self.aside = 0  # multiply-accumulates of calls that do not depend on the inputs: tables made anew in every run
        self._leaves = {path for path, module in model.named_modules() if not any(module.children())}
        self._running = [""]
        self._names: Counter[str] = Counter()
        self._unknown: set[str] = set()
        self._values: dict[int, _Value] = {}
        self._shadows: dict[int, Tensor] = {}
        self._answers: dict[Any, Any] = {}
        self._aliases = Aliases()
        self._sizes = {path: parameter.numel() for path, parameter in model.named_parameters()}
        self._inside = {path: frozenset([path]) for path in self._sizes}  # the parameters that own tensors are made of
        self._home = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
        for path, tensor in chain(model.named_parameters(), model.named_buffers()):
            self._keep(tensor, _Value(Operand(path, tuple(tensor.shape), own=True)))
        self._held = {value.operand.name for value in self._values.values()}

    def source(self, x: Tensor, label: str) -> Operand:
        """Enter an input of the model."""
        operand = Operand(self._fresh(label), tuple(x.shape))
        self._keep(x, _Value(operand))
        return operand

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Know at every call which module runs."""
        handles = []
        try:
            for path, module in model.named_modules():
                handles.append(module.register_forward_pre_hook(self._entering(path), prepend=True))
                handles.append(module.register_forward_hook(self._leaving))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _entering(self, path: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, args: self._running.append(path)

    def _leaving(self, module: nn.Module, args: Any, out: Any) -> None:
        self._running.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a call: on shapes where it depends on the inputs, as it is where it does not."""
        kwargs = kwargs or {}
        tensors = _tensors((args, kwargs))
        if all(self._value(tensor).operand.own for tensor in tensors):
            out = func(*_changed(args, self._at_home), **_changed(kwargs, self._at_home))
            self._keep_own(tensors, out)
            self.aside += self._multiplied(func, args, kwargs, out)
            return out
        bound = _bind(func, args, kwargs)
        seen = {name: self._plain(value) for name, value in bound.items()}
        out = self._run(func, _changed(args, self._without_values), _changed(kwargs, self._without_values))
        self._write_down(func, Call(str(func), seen, tuple(tuple(x.shape) for x in _tensors(out))), bound, out)
        return out

    def _multiplied(self, func: Any, args: Any, kwargs: Any, out: Any) -> int:
        name = str(func)
        if name not in RULES or not RULES[name].kind:
            return 0
        bound = _changed(_bind(func, args, kwargs), lambda x: self._value(x).operand if isinstance(x, Tensor) else x)
        return RULES[name].macs(Call(name, bound, tuple(tuple(x.shape) for x in _tensors(out))))

    def _at_home(self, value: Any) -> Any:
        """A table made "where the input is" is made where the model is: forward may ask for its values."""
        return self._home if isinstance(value, torch.device) and value == META else value

    def _without_values(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._shadow(value)
        return META if isinstance(value, torch.device) else value

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Shapes are worked out once for calls that are alike: torch needs milliseconds for a normalization's."""
        like = (func, _signature(args), _signature([*kwargs.items()]))
        in_place = _in_place(func)
        if like in self._answers:
            return args[0] if in_place else _changed(self._answers[like], _alike)
        out = func(*args, **kwargs)
        shared = any(id(made) in self._values or self._aliases.overlapping(made) for made in _tensors(out))
        if in_place or not shared:  # a view, and dropout, share their input's memory
            self._answers[like] = out
        return out

    def _shadow(self, tensor: Tensor) -> Tensor:
        """A tensor without its values, always the same one."""
        if tensor.device == META:
            return tensor
        if id(tensor) not in self._shadows:
            size, stride = tensor.size(), tensor.stride()
            self._shadows[id(tensor)] = torch.empty_strided(size, stride, dtype=tensor.dtype, device=META)
        return self._shadows[id(tensor)]

    def _write_down(self, func: Any, call: Call, bound: Mapping[str, Any], out: Any) -> None:
        if call.op in SHAPE_ONLY:
            self._keep_own([], out)
        elif call.outs:  # without outputs: an assertion
            module = self._running[-1]
            name = self._append(func.__name__.partition(".")[0], call, module)
            for written in _written(func, bound):
                self._overwrite(written, _Value(Operand(name, tuple(written.shape)), module=module), call.op)
            several = isinstance(out, list | tuple)
            for index, tensor in enumerate(out if several else [out]):
                operand = Operand(name, tuple(tensor.shape))
                self._keep(tensor, _Value(operand, index if several else None, module))

    def _overwrite(self, tensor: Tensor, value: _Value, op: str) -> None:
        for other in self._aliases.overlapping(tensor):
            self._values[id(other)] = replace(self._value(other), written=op)
        self._keep(tensor, value)

    def _append(self, label: str, call: Call, module: str) -> str:
        inside = (path for x in call.operands if x.own for path in self._inside.get(x.name, ()))
        params = sum(self._sizes.pop(path, 0) for path in inside)
        node = Node(self._fresh(label), call, module, module in self._leaves, params, known=True)
        if not node.ruled or self._unknown.intersection(x.name for x in call.operands):
            self._unknown.add(node.name)
            node = replace(node, known=False)
        self.nodes.append(node)
        return node.name

    def operand(self, tensor: Tensor) -> Operand:
        """What stands for a tensor in a call; taken from its call's outputs first where there are several."""
        value = self._value(tensor)
        if value.written:
            call = Call(f"{value.written} through a view", {"self": value.operand}, (tuple(tensor.shape),))
            value = self._renamed(tensor, self._append("overwritten", call, value.module), value)
        elif value.index is not None:
            call = Call(GETITEM, {"self": value.operand, "index": value.index}, (tuple(tensor.shape),))
            value = self._renamed(tensor, self._append("getitem", call, value.module), value)
        if value.operand.own and value.operand.name not in self._held:
            self.constants[value.operand.name] = tensor
        return value.operand

    def _renamed(self, tensor: Tensor, name: str, value: _Value) -> _Value:
        self._values[id(tensor)] = _Value(Operand(name, tuple(tensor.shape)), module=value.module)
        return self._values[id(tensor)]

    def _plain(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.operand(value)
        return [self._plain(item) for item in value] if isinstance(value, list | tuple) else value

    def _value(self, tensor: Tensor) -> _Value:
        """What a tensor stands for. One that no call made (`.data`) is another's memory under a new name."""
        if id(tensor) not in self._values:
            shared = self._aliases.overlapping(tensor)
            like = next((x for x in shared if x.shape == tensor.shape and x.stride() == tensor.stride()), None)
            if like is not None:
                self._keep(tensor, self._value(like))
            elif any(not self._value(other).operand.own for other in shared):
                self._keep(tensor, replace(self._value(shared[0]), written="aten.view"))
            else:
                self._keep_own(shared, tensor)
        return self._values[id(tensor)]

    def _keep(self, tensor: Tensor, value: _Value) -> None:
        self._values[id(tensor)] = value
        self._aliases.add(tensor)

    def _keep_own(self, sources: Sequence[Tensor], made: Any) -> None:
        """Enter what does not depend on the inputs, with the parameters it is made of."""
        inside = frozenset(path for x in sources for path in self._inside.get(self._value(x).operand.name, ()))
        for tensor in _tensors(made):
            if id(tensor) not in self._values:
                operand = Operand(self._fresh("constant"), tuple(tensor.shape), own=True)
                self._inside[operand.name] = inside
                self._keep(tensor, _Value(operand))

    def _fresh(self, label: str) -> str:
        self._names[label] += 1
        return label if self._names[label] == 1 else f"{label}_{self._names[label] - 1}"


def _bind(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments by the names of the op's schema, defaults filled in."""
    schema = func._schema.arguments
    given = dict(zip((a.name for a in schema), args, strict=False)) | dict(kwargs)
    given |= {a.name: a.default_value for a in schema if a.has_default_value() and a.name not in given}
    return {a.name: given[a.name] for a in schema if a.name in given}


def _signature(value: Any) -> Any:
    """What decides the shapes of an answer, hashable; numbers with their type, as 1 == 1.0 == True."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    return tuple(map(_signature, value)) if isinstance(value, list | tuple) else (type(value), value)


def _in_place(func: Any) -> bool:
    """Whether a call only changes values of its first argument, and answers it."""
    schema = func._schema
    ends = [each[0].alias_info for each in (schema.arguments, schema.returns) if each]
    written = len(ends) == 2 and all(info is not None and info.is_write for info in ends)
    return written and len(schema.returns) == 1 and torch.Tag.inplace_view not in func.tags


def _written(func: Any, bound: Mapping[str, Any]) -> Iterator[Tensor]:
    """The tensors that a call writes into."""
    for argument in func._schema.arguments:
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from _tensors(bound.get(argument.name))


def _tensors(value: Any) -> list[Tensor]:
    """Those in a call's arguments or answer, in order: what torch's own tree functions find in many times the time."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return []
    return [tensor for item in value for tensor in _tensors(item)]


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """Lists, tuples and dictionaries of arguments, each changed."""
    if isinstance(value, list | tuple):
        items = [_changed(item, change) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return {name: _changed(item, change) for name, item in value.items()} if isinstance(value, dict) else change(value)


def _alike(value: Any) -> Any:
    return torch.empty_like(value) if isinstance(value, Tensor) else value
