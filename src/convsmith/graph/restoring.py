"""A model is left as it was: what its forward sets on its modules is taken back."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

HOLDERS = frozenset([list, dict, set])


@contextmanager
def left_as_it_is(model: nn.Module) -> Iterator[None]:
    """Take back what forward sets: modes, attributes, buffers and their values, what it adds to lists and the like."""
    modules = list(model.modules())
    kept = [(dict(vars(module)), dict(module._buffers)) for module in modules]
    values = [(x, x._version, x.detach().clone()) for _, buffers in kept for x in _with_values(buffers.values())]
    contents = [(x, x.copy()) for attributes, _ in kept for x in attributes.values() if type(x) in HOLDERS]
    try:
        yield
    finally:
        for module, (attributes, buffers) in zip(modules, kept, strict=True):
            for name in vars(module).keys() - attributes.keys():
                del vars(module)[name]
            vars(module).update(attributes)
            module._buffers.clear()
            module._buffers.update(buffers)
        for buffer, version, before in values:
            if buffer._version != version:
                buffer.copy_(before)
        for inside, before in contents:
            if inside or before:
                _fill(inside, before)


def _with_values(buffers: Iterable[Tensor | None]) -> list[Tensor]:
    return [x for x in buffers if x is not None and not (is_lazy(x) or x.is_meta or x.is_inference())]


def _fill(inside: Any, before: Any) -> None:
    if isinstance(inside, list):
        inside[:] = before
    else:
        inside.clear()
        inside.update(before)
