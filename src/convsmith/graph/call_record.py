"""How a model is called, as JSON values: what a plan of a net of several inputs keeps, and `apply` reads."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_flatten

from convsmith.bounds import check_input
from convsmith.errors import PlanError
from convsmith.graph.signature import Signature, Slot

PLAIN = (bool, int, float, str, type(None))


def call_record(signature: Signature) -> dict[str, Any] | None:
    """The arguments as JSON values; None where they are one image, which a plan's `input` tells.

    Tensors are told by name, shape, type and whether a batch stands in front; containers as what they are.

    >>> two = (torch.zeros(1, 3), torch.zeros(1, 4))
    >>> record = call_record(Signature.of(torch.nn.Bilinear(3, 4, 5), two))
    >>> record["args"][1]
    {'tensor': 'input2', 'shape': [1, 4], 'dtype': 'float32', 'batched': True}
    """
    args, kwargs = signature.call(list(signature.slots))
    first = args[0] if len(args) == 1 and not kwargs else None
    if isinstance(first, Slot) and first.batched and first.dtype.is_floating_point:
        return None
    return {"args": [_told(each) for each in args], "kwargs": {name: _told(each) for name, each in kwargs.items()}}


def read_call(record: Mapping[str, Any]) -> Signature:
    """The signature that was written; raises PlanError on what is none, and on values that no plan can tell."""
    args, kwargs = record.get("args"), record.get("kwargs")
    if not isinstance(args, list) or not isinstance(kwargs, dict) or len(record) != 2:
        raise PlanError("The plan's `call` holds no args and kwargs; make the plan anew.")
    try:
        arguments = tuple(map(_read, args)), {name: _read(each) for name, each in kwargs.items()}
    except RecursionError:
        raise PlanError("The plan's `call` is nested too deeply; make the plan anew.") from None
    leaves, spec = tree_flatten(arguments)
    return Signature(tuple(leaves), spec)


def _told(value: Any) -> Any:
    if isinstance(value, Slot):
        dtype = str(value.dtype).removeprefix("torch.")
        return {"tensor": value.name, "shape": list(value.shape), "dtype": dtype, "batched": value.batched}
    if type(value) in (list, tuple):
        inner = [_told(each) for each in value]
        return inner if isinstance(value, list) else {"tuple": inner}
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return {"dict": {key: _told(each) for key, each in value.items()}}
    return value if type(value) in PLAIN else {"object": type(value).__name__}


def _read(record: Any) -> Any:
    if type(record) in PLAIN:
        return record
    match record:
        case list():
            return [_read(each) for each in record]
        case {"tuple": list(inner), **rest} if not rest:
            return tuple(map(_read, inner))
        case {"dict": dict(inner), **rest} if not rest:
            return {key: _read(each) for key, each in inner.items()}
        case {"tensor": str(name), "shape": list(shape), "dtype": str(dtype), "batched": bool(batched)} if (
            len(record) == 4
        ):
            return _slot(name, shape, dtype, batched)
        case {"object": str(kind)}:
            raise PlanError(
                f"The model is called with a {kind}, which a plan cannot keep; call it with tensors and numbers."
            )
    raise PlanError(f"The plan's `call` holds {record!r:.60}, which is no argument; make the plan anew.")


def _slot(name: str, shape: list[Any], dtype: str, batched: bool) -> Slot:
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype) or not all(type(size) is int and size > 0 for size in shape):
        raise PlanError(
            f"The plan's `call` tells no shape and type of {name!r}: {shape!r:.60}, {dtype!r:.60}; make the plan anew."
        )
    check_input(shape, f"the plan's input {name!r}")
    return Slot(name, tuple(shape), kind, batched)
