"""One ATen call as plain data, and the table of rules that answer for it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from convsmith.reach import Reach
from convsmith.registry import Registry


@dataclass(frozen=True)
class Operand:
    """A tensor in a graph: its name, shape, and whether it is one of the model's own (parameter, buffer, constant)."""

    name: str
    shape: tuple[int, ...]
    own: bool = False


@dataclass(frozen=True)
class Call:
    """A call of the ATen op `op`: arguments by the names of its schema (tensors as Operands), and its output shapes."""

    op: str
    args: Mapping[str, Any]
    outs: tuple[tuple[int, ...], ...]

    def __getitem__(self, name: str) -> Any:
        return self.args[name]

    @property
    def out(self) -> tuple[int, ...]:
        """The shape of the (first) output, batch included."""
        return self.outs[0]

    @cached_property
    def operands(self) -> list[Operand]:
        """Every tensor argument in order, lists unpacked."""
        flat: list[Any] = []
        for value in self.args.values():
            flat.extend(value) if isinstance(value, list | tuple) else flat.append(value)
        return [value for value in flat if isinstance(value, Operand)]

    @cached_property
    def sources(self) -> list[str]:
        """The names of the tensors among them that are not the model's own."""
        return [x.name for x in self.operands if not x.own]

    @property
    def input(self) -> Operand:
        """The first tensor argument."""
        return self.operands[0]


Answer = Reach | tuple[Reach, ...] | None
Seen = Sequence[Reach | None]
Count = Callable[[Call], int]


def nothing(call: Call) -> int:
    """The cost of an op that multiplies nothing."""
    return 0


@dataclass(frozen=True)
class Rule:
    """What an op does: to reach (from its operands' reaches, in order, None where one sees nothing), and its costs.

    `macs` counts multiply-accumulates as torch's FlopCounterMode does, halved; `ptflops` is what the tool of that name
    counts for a module whose forward is this op. `kind` is set for ops listed as layers.
    """

    reach: Callable[[Call, Seen], Answer]
    macs: Count = nothing
    ptflops: Count = nothing
    kind: str = ""


RULES: Registry[Rule] = Registry("ATen op")


def unary(
    *ops: str, macs: Count = nothing, ptflops: Count = nothing, kind: str = ""
) -> Callable[[Callable[[Call, Reach], Answer]], Callable[[Call, Reach], Answer]]:
    """Register a rule for ops whose first tensor carries the data: `def rule(call, x)`."""

    def register(rule: Callable[[Call, Reach], Answer]) -> Callable[[Call, Reach], Answer]:
        def reach(call: Call, seen: Seen) -> Answer:
            return None if seen[0] is None else rule(call, seen[0])

        for op in ops:
            RULES.add(op, Rule(reach, macs, ptflops, kind))
        return rule

    return register


def shaped(*ops: str) -> Callable[[Callable[[Call, Reach], Answer]], Callable[[Call, Reach], Answer]]:
    """The same for ops whose second tensor gives its shape or type alone: of a table of the model's own, nothing."""

    def register(rule: Callable[[Call, Reach], Answer]) -> Callable[[Call, Reach], Answer]:
        def reach(call: Call, seen: Seen) -> Answer:
            x, like = seen
            return rule(call, x) if x is not None else None if like is None else like.nothing(call.out)

        for op in ops:
            RULES.add(op, Rule(reach))
        return rule

    return register


def joining(
    *ops: str, macs: Count = nothing, ptflops: Count = nothing, kind: str = ""
) -> Callable[[Callable[[Call, Seen], Answer]], Callable[[Call, Seen], Answer]]:
    """Register a rule for ops that join several tensors: `def rule(call, seen)`."""

    def register(rule: Callable[[Call, Seen], Answer]) -> Callable[[Call, Seen], Answer]:
        for op in ops:
            RULES.add(op, Rule(rule, macs, ptflops, kind))
        return rule

    return register


def out_numel(call: Call) -> int:
    """Elements of the output."""
    return prod(call.out)


def in_numel(call: Call) -> int:
    """Elements of the first operand."""
    return prod(call.input.shape)


def numbers(value: Any, dims: int, empty: Sequence[int] = ()) -> tuple[int, ...]:
    """ATen's lists of one number mean that number for every dimension; an empty list means `empty`."""
    values = [value] if isinstance(value, int) else list(value)
    return tuple(empty) if not values else tuple(values * dims if len(values) == 1 else values)


def dim_of(call: Call, dim: int) -> int:
    """A dimension argument of the first operand, counted from the front."""
    return dim % max(len(call.input.shape), 1)
