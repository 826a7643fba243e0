"""The operators that a .pt2 file may call: those that compute on tensors and numbers, by an explicit list."""

import math
import operator
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket

from convsmith.pt2.archive import UnsafeError

# Namespaces of operators, and which of them; None for all. ATen's read and write files nowhere but where told below.
NAMESPACES: dict[str, frozenset[str] | None] = {
    "aten": None,
    "prims": None,
    "convsmith": frozenset({"rolling_pointwise"}),
    "torchvision": frozenset({"deform_conv2d", "nms", "ps_roi_align", "ps_roi_pool", "roi_align", "roi_pool"}),
}
FILE_ARGUMENTS = frozenset({"filename", "path"})  # of aten.from_file and aten.save
# Of the operators without tensors, those that torch.export writes. Others make texts and lists of any length, or print.
ASSERTIONS = frozenset({"_assert_scalar", "sym_constrain_range", "sym_constrain_range_for_size"})

SIZES = (bool, int, float, torch.SymInt, torch.SymFloat, torch.SymBool)
LARGEST = 1 << 63  # that torch has sizes for: a file could make numbers of any length by doubling


def _of_sizes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Arithmetic on sizes alone: of a text, or a list, it could make one of any length."""

    @wraps(function)
    def bounded(*given: Any) -> Any:
        for value in given:
            if not isinstance(value, SIZES):
                raise TypeError(f"{function.__name__} of a {type(value).__name__}, which is no size")
            if isinstance(value, int) and abs(value) >= LARGEST:
                raise OverflowError("a size beyond 64 bits")
        return function(*given)

    return bounded


# Arithmetic on sizes. No powers: a file could make a number with them that takes days to work out.
NUMBERS: dict[str, Callable[..., Any]] = {
    **{
        f"_operator.{name}": _of_sizes(getattr(operator, name))
        for name in (
            "add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pos", "eq", "ne", "lt", "le", "gt", "ge",
            "and_", "or_",
        )
    },
    "_operator.getitem": operator.getitem,
    "math.trunc": math.trunc, "math.floor": math.floor, "math.ceil": math.ceil,
    **{
        f"torch.{name}": getattr(torch, name)
        for name in ("sym_int", "sym_float", "sym_max", "sym_min", "sym_not", "sym_ite")
    },
}  # fmt: skip


def _plainly(enabled: Any, body: Callable[..., Any], *args: Any) -> Any:
    """Gradients, switched on or off within a part of forward, change no value."""
    return body(*args)


def _cast(device: str, dtype: Any, enabled: bool, cache: Any, body: Callable[..., Any], *args: Any) -> Any:
    with torch.autocast("cpu", dtype if device == "cpu" else torch.bfloat16, enabled):
        return body(*args)


# Operators that run a part of the graph.
PARTS: dict[str, Callable[..., Any]] = {
    "torch.ops.higher_order.wrap_with_set_grad_enabled": _plainly,
    "torch.ops.higher_order.wrap_with_autocast": _cast,
}


def operator_of(target: str) -> Callable[..., Any]:
    """The function that a node's target names; raises UnsafeError on all but those of the list.

    >>> operator_of("torch.ops.aten.relu.default"), operator_of("_operator.mul")  # doctest: +ELLIPSIS
    (<OpOverload(op='aten.relu', overload='default')>, <function mul at ...>)
    >>> operator_of("torch.os.system")
    Traceback (most recent call last):
    convsmith.pt2.archive.UnsafeError: a call of torch.os.system
    """
    if target in NUMBERS:
        return NUMBERS[target]
    if target in PARTS:
        return PARTS[target]
    parts = target.split(".")
    if target.startswith("torch.ops.") and len(parts) == 5:
        found = _overload(*parts[2:])
        if found is not None:
            return found
    raise UnsafeError(f"a call of {target[:100]}")


def _overload(space: str, name: str, overload: str) -> OpOverload[Any, Any] | None:
    if space not in NAMESPACES or name not in (NAMESPACES[space] or {name}):
        return None
    if space == "torchvision":
        import torchvision  # noqa: F401  # registers its operators
    packet = getattr(getattr(torch.ops, space), name)
    if not isinstance(packet, OpOverloadPacket) or overload not in packet.overloads():  # type: ignore[no-untyped-call]
        return None
    found = getattr(packet, overload)
    if not isinstance(found, OpOverload):
        return None
    texts = {argument.name for argument in found._schema.arguments if "str" in str(argument.type)}
    if FILE_ARGUMENTS & texts:  # einsum's path is a list of numbers
        return None
    ends = (*found._schema.arguments, *found._schema.returns)
    return found if name in ASSERTIONS or any("Tensor" in str(end.type) for end in ends) else None
