"""The tape that a capture writes: every ATen call that depends on the inputs, with its module."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from convsmith.bounds import TABLES, check_tensor
from convsmith.graph.aliases import Aliases, Reference
from convsmith.graph.answers import answered
from convsmith.graph.arguments import bind, changed, schema_of, tensors, written
from convsmith.graph.call import RULES, Call, Operand
from convsmith.graph.constants import Constants
from convsmith.graph.executions import Execution
from convsmith.graph.growth import Growth
from convsmith.graph.lattice import Box
from convsmith.graph.node import GETITEM, Node
from convsmith.graph.ops.writes import OVERWRITTEN
from convsmith.graph.running import Running

# What they make has a tensor's shape and nothing of its values.
SHAPE_ONLY = frozenset(
    f"aten.{op}.default"
    for op in (
        "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like",
        "new_zeros", "new_ones", "new_full", "new_empty",
    )
)  # fmt: skip


# Ops whose indices may be masks.
BY_MASKS = frozenset(["aten.index.Tensor", "aten.index_put.default", "aten.index_put_.default"])
MASKS = (torch.bool, torch.uint8)

# What reads all of a tensor out of torch ends with it; what comes in from there afterwards may depend on that.
READ_OUT = "aten.resolve_neg.default"
READ_IN = "values from outside of torch"


@dataclass(frozen=True)
class _Write:
    """A call that wrote into elements of a tensor through another view: what it wrote, and where in their memory."""

    op: str
    written: Operand
    box: Box | None
    module: str


@dataclass(frozen=True)
class _Value:
    """What a tensor stands for: an operand, or one output of a call that has several and must be taken from it."""

    operand: Operand
    index: int | None = None
    module: str = ""  # of the call that made it
    writes: tuple[_Write, ...] = ()  # through other views, since

    @property
    def own(self) -> bool:
        """Whether it does not depend on the inputs."""
        return self.operand.own and not self.writes


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The calls that depend on the inputs, in order."""

    def __init__(self, model: nn.Module, execution: Execution) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nodes: list[Node] = []
        self.constants = Constants()
        self.tables: Counter[str] = Counter()  # multiply-accumulates by module on tables made anew in every run
        self.modules, self.parameters = dict(model.named_modules()), dict(model.named_parameters())
        self._leaves = {path for path, module in self.modules.items() if not any(module.children())}
        self.running = Running(self.modules)
        self._names: Counter[str] = Counter()
        self._unknown: set[str] = set()
        self._loose: set[str] = set()
        self._values: dict[int, tuple[Reference, _Value]] = {}
        self._execution = execution
        self._called, self._growth = type(model).__name__, Growth(TABLES)
        self._aliases = Aliases(execution.refer)
        self._sizes = {path: parameter.numel() for path, parameter in self.parameters.items()}
        self._inside = {path: frozenset([path]) for path in self._sizes}  # the parameters that own tensors are made of
        self._held: set[str] = set()
        self._read_out = False
        for path, tensor in chain(self.parameters.items(), model.named_buffers()):
            self._keep(tensor, _Value(Operand(path, tuple(tensor.shape), own=True)))
            self._held.add(path)

    def source(self, x: Tensor, label: str) -> Operand:
        """Enter an input of the model."""
        operand = Operand(self._fresh(label), tuple(x.shape))
        self._keep(x, _Value(operand))
        return operand

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a call: as the execution says where it depends on the inputs, as it is where it does not."""
        kwargs, name = kwargs or {}, schema_of(func).name
        if name in BY_MASKS:
            args = self._by_places(*args)
        given = tensors((args, kwargs))
        bound = bind(func, args, kwargs)
        changing = [*written(func, bound)]
        if all(self._value(tensor).own for tensor in given) and not any(map(self.constants.mixed, changing)):
            self._keep_read(changing)
            args, kwargs = (changed(each, self._execution.at_home) for each in (args, kwargs))
            self._growth.enter(func, args, kwargs, self._called)
            out = func(*args, **kwargs)
            self._keep_own(given, out)
            self.tables += Counter({self.running.path: self._multiplied(func, bound, out)})
            return out
        if name in SHAPE_ONLY:
            out = func(*args, **kwargs | {"device": self._execution.at_home(kwargs.get("device") or given[0].device)})
            self._keep_own([], out)
            return out
        seen = {name: self._plain(value) for name, value in bound.items()}
        for tensor in changing:
            self._mix(tensor)
        if name == READ_OUT:
            self._leave_torch()
        loose = self._execution.sized_by_values(func, args, kwargs)
        out = self._execution.run(func, args, kwargs, self._aliases)
        self._write_down(func, Call(name, seen, tuple(tuple(x.shape) for x in tensors(out))), bound, out, loose)
        return out

    def _by_places(self, x: Any, indices: Any, *rest: Any) -> Any:
        """Masks of the model's own as the places that they select: these are the same for every input."""
        placed: list[Any] = []
        for index in indices:
            if isinstance(index, Tensor) and index.dtype in MASKS and self._value(index).own and not index.is_meta:
                placed += index.nonzero().unbind(1)
                self._keep_own([index], placed)
            else:
                placed.append(index)
        return x, placed, *rest

    def _multiplied(self, func: Any, bound: Mapping[str, Any], out: Any) -> int:
        name = schema_of(func).name
        if name not in RULES or not RULES[name].kind:
            return 0
        plain = changed(dict(bound), lambda x: self._value(x).operand if isinstance(x, Tensor) else x)
        return RULES[name].macs(Call(name, plain, tuple(tuple(x.shape) for x in tensors(out))))

    def _write_down(self, func: Any, call: Call, bound: Mapping[str, Any], out: Any, loose: bool) -> None:
        for shape in call.outs:
            check_tensor(shape, f"{self._called}: {call.op}")
        module, changing = self.running.path, [*written(func, bound)]
        if call.outs:
            name = self._append(func.__name__.partition(".")[0], call, module, loose)
            for tensor in changing:
                self._overwrite(tensor, _Value(Operand(name, tuple(tensor.shape)), module=module), call.op)
            several = isinstance(out, list | tuple)
            for index, tensor in enumerate(out if several else [out]):
                operand = Operand(name, tuple(tensor.shape))
                self._keep(tensor, _Value(operand, index if several else None, module))
        elif changing:  # without either: an assertion, or a value that is read
            self._write_lists(func, call, changing, loose)

    def _write_lists(self, func: Any, call: Call, changing: Sequence[Tensor], loose: bool) -> None:
        """A call that changes the tensors of a list and answers nothing, as `_foreach_add_` does."""
        module, shapes = self.running.path, tuple(tuple(tensor.shape) for tensor in changing)
        name = self._append(func.__name__.partition(".")[0], replace(call, outs=shapes), module, loose)
        for index, tensor in enumerate(changing):
            one = Call(GETITEM, {"self": Operand(name, shapes[index]), "index": index}, (shapes[index],))
            taken = Operand(self._append("getitem", one, module), shapes[index])
            self._overwrite(tensor, _Value(taken, module=module), call.op)

    def _overwrite(self, tensor: Tensor, value: _Value, op: str) -> None:
        write = _Write(op, value.operand, self._aliases.box(tensor), value.module)
        for other in self._aliases.overlapping(tensor):
            before = self._value(other)
            self._keep(other, replace(before, writes=(*before.writes, write)))
        self._keep(tensor, value)

    def _append(self, label: str, call: Call, module: str, loose: bool = False) -> str:
        inside = (path for x in call.operands if x.own for path in self._inside.get(x.name, ()))
        params = sum(self._sizes.pop(path, 0) for path in inside)
        loose = loose or bool(self._loose.intersection(x.name for x in call.operands))
        node = Node(self._fresh(label), call, module, module in self._leaves, params, known=True, loose=loose)
        if loose:
            self._loose.add(node.name)
        if loose or not node.ruled or self._unknown.intersection(x.name for x in call.operands):
            self._unknown.add(node.name)
            node = replace(node, known=False)
        self.nodes.append(node)
        return node.name

    def operand(self, tensor: Tensor) -> Operand:
        """What stands for a tensor in a call; taken from its call's outputs first where there are several."""
        value = self._value(tensor)
        if value.index is not None:
            call = Call(GETITEM, {"self": value.operand, "index": value.index}, (tuple(tensor.shape),))
            value = self._renamed(tensor, self._append("getitem", call, value.module), value)
        for write in value.writes:
            call = self._written(tensor, value.operand, write)
            value = self._renamed(tensor, self._append("overwritten", call, write.module), value)
        if value.writes:
            value = replace(value, writes=())
            self._keep(tensor, value)
        if value.operand.own and value.operand.name not in self._held:
            self.constants.read(value.operand.name, tensor)
        return value.operand

    def _mix(self, tensor: Tensor) -> None:
        """A table of the model's own is about to hold what depends on the inputs."""
        if any(self._value(other).own for other in (tensor, *self._aliases.overlapping(tensor))):
            self.constants.mix(tensor)

    def _written(self, tensor: Tensor, before: Operand, write: _Write) -> Call:
        """What a tensor holds after a write through another view, followed where both are boxes in their memory."""
        self._read(before, tensor)
        args, box = {"self": before, "part": write.written}, self._aliases.box(tensor)
        if box is None or write.box is None:
            return Call(f"{write.op} through a view", args, (tuple(tensor.shape),))
        return Call(OVERWRITTEN, args | {"view": box, "written": write.box}, (tuple(tensor.shape),))

    def _read(self, operand: Operand, tensor: Tensor) -> None:
        if operand.own and operand.name not in self._held:
            self.constants.read(operand.name, tensor)

    def _renamed(self, tensor: Tensor, name: str, value: _Value) -> _Value:
        renamed = _Value(Operand(name, tuple(tensor.shape)), module=value.module, writes=value.writes)
        self._keep(tensor, renamed)
        return renamed

    def _plain(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.operand(value)
        return [self._plain(item) for item in value] if isinstance(value, list | tuple) else value

    def _value(self, tensor: Tensor) -> _Value:
        """What a tensor stands for. One that no call made (`.data`) is another's memory under a new name."""
        refer, value = self._values.get(id(tensor), (None, None))
        if refer is None or value is None or refer() is not tensor:
            self._keep_stranger(tensor)
        return self._values[id(tensor)][1]

    def _keep_stranger(self, tensor: Tensor) -> None:
        shared = self._aliases.overlapping(tensor)
        like = next((x for x in shared if x.shape == tensor.shape and x.stride() == tensor.stride()), None)
        if like is not None:
            self._keep(tensor, self._value(like))
        elif mine := [other for other in shared if not self._value(other).own]:
            value = self._value(mine[0])
            write = _Write("aten.view", self.operand(mine[0]), self._aliases.box(mine[0]), value.module)
            self._keep(tensor, replace(self._value(mine[0]), writes=(write,)))
        elif self._read_out and not shared and tensor.dim():
            call = Call(READ_IN, {}, (tuple(tensor.shape),))
            name = self._append("read_in", call, self.running.path, loose=True)
            self._keep(tensor, _Value(Operand(name, tuple(tensor.shape)), module=self.running.path))
        else:
            self._keep_own(shared, tensor)

    def _leave_torch(self) -> None:
        """Values that depend on the inputs become Python's: the tables that modules hold are known before."""
        if not self._read_out:
            for module in self.modules.values():
                for tensor in answered(vars(module)):
                    self._value(tensor)
        self._read_out = True

    def _keep(self, tensor: Tensor, value: _Value) -> None:
        self._values[id(tensor)] = self._execution.refer(tensor), value
        self._aliases.add(tensor)

    def _keep_own(self, sources: Sequence[Tensor], made: Any) -> None:
        """Enter what does not depend on the inputs, with the parameters it is made of."""
        inside = frozenset(path for x in sources for path in self._inside.get(self._value(x).operand.name, ()))
        for tensor in tensors(made):
            refer, _ = self._values.get(id(tensor), (None, None))
            if refer is None or refer() is not tensor:
                operand = Operand(self._fresh("constant"), tuple(tensor.shape), own=True)
                self._inside[operand.name] = inside
                self._keep(tensor, _Value(operand))

    def _keep_read(self, changing: Sequence[Tensor]) -> None:
        """What calls have read of tables that are about to change is kept as it was, the tables under new names."""
        for tensor in (x for each in changing for x in (each, *self._aliases.overlapping(each))):
            value = self._value(tensor)
            if value.own and value.operand.name in self.constants:
                self.constants[value.operand.name] = tensor.clone()
                operand = Operand(self._fresh("constant"), tuple(tensor.shape), own=True)
                self._inside[operand.name] = self._inside.get(value.operand.name, frozenset())
                self._keep(tensor, _Value(operand))

    def _fresh(self, label: str) -> str:
        self._names[label] += 1
        return label if self._names[label] == 1 else f"{label}_{self._names[label] - 1}"
