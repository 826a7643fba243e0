"""Calibration images, kept as bytes where a data set has them so: a quarter of the memory. Several inputs, as calls."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from convsmith.errors import DataError
from convsmith.graph.signature import Signature


@dataclass(frozen=True, eq=False)
class Bytes:
    """Images (n, c, h, w) as uint8, normalized whenever a stretch of them is read.

    >>> import torch
    >>> Bytes(torch.full((2, 1, 1, 1), 51, dtype=torch.uint8), lambda images: images / 255)[:1].item()
    0.20000000298023224
    """

    pixels: Tensor
    normalize: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, part: slice) -> Tensor:
        return self.normalize(self.pixels[part])


@runtime_checkable
class Drawn(Protocol):
    """A split that gives its images as bytes, with what makes them what a net reads."""

    @property
    def normalize(self) -> Callable[[Tensor], Tensor]:
        """From uint8 (n, c, h, w) to normalized floats."""

    def drawn(self, count: int, *, seed: int) -> Tensor:
        """So many images as uint8 (n, c, h, w), drawn by the seed."""


@dataclass(frozen=True, eq=False)
class Several:
    """What a net of several inputs is called with, (n, ...) each, in the order of its signature's slots.

    >>> import torch
    >>> two = torch.zeros(4, 3), torch.ones(4, 5)
    >>> several = Several(two, Signature.of(torch.nn.Bilinear(3, 5, 2), two))
    >>> len(several[1:3]), several.call()[0][1].shape
    (2, torch.Size([4, 5]))
    """

    tensors: tuple[Tensor, ...]
    signature: Signature

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, part: slice) -> "Several":
        return Several(tuple(tensor[part] for tensor in self.tensors), self.signature)

    def to(self, like: Tensor, copy: bool = False) -> "Several":
        """On the device of `like`, floats in its type."""
        moved = (x.to(like, copy=copy) if x.is_floating_point() else x.to(like.device, copy=copy) for x in self.tensors)
        return Several(tuple(moved), self.signature)

    def clone(self) -> "Several":
        """A copy."""
        return Several(tuple(tensor.clone() for tensor in self.tensors), self.signature)

    def call(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments by position and by name."""
        return self.signature.call(self.tensors)


# What hands out any stretch of itself as normalized floats (n, c, h, w), or as what a net of several inputs reads.
Pictures = Tensor | Bytes | Several


def arguments(part: Tensor | Several) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a net is called with for a stretch: one image batch, or the arguments of several inputs."""
    return ((part,), {}) if isinstance(part, Tensor) else part.call()


def alone(part: Tensor | Several) -> Tensor:
    """A stretch of a net of one input; raises DataError where there are several."""
    if isinstance(part, Tensor):
        return part
    raise DataError(f"This is for nets of one input, and the data gives {len(part.tensors)}; give images alone.")


def tensors_of(part: Tensor | Several) -> tuple[Tensor, ...]:
    """The tensors of a stretch."""
    return (part,) if isinstance(part, Tensor) else part.tensors


def take_several(data: Any, count: int, signature: Signature | None) -> Several:
    """`count` calls of a net of several inputs: from batches, each a tuple or a dictionary of its tensors.

    Tuples are in the order of the net's arguments, and may go on with labels; dictionaries are by their names. One
    tuple of tensors or one dictionary is all batches in one. Raises ConvsmithError on what is none of these.
    """
    if isinstance(data, Several):
        return data[:count]
    assert signature is not None
    names = ", ".join(slot.name for slot in signature.slots)
    wanted = f"give batches of ({names}), as tuples or dictionaries"
    if fixed := [slot.name for slot in signature.slots if not slot.batched]:
        raise DataError(f"The net reads {fixed[0]} without a batch in front, so that no batches of it can be run.")
    if isinstance(data, Tensor) or not isinstance(data, Iterable):
        raise DataError(f"The net takes more than one image, and the data gives {type(data).__name__}; {wanted}.")
    whole = isinstance(data, dict) or (isinstance(data, tuple) and all(isinstance(x, Tensor) for x in data))
    taken: list[tuple[Tensor, ...]] = []
    for batch in [data] if whole else data:
        taken.append(_slots_of(batch, signature, wanted))
        if sum(len(tensors[0]) for tensors in taken) >= count:
            break
    if not taken or not len(taken[0][0]):
        raise DataError(f"The calibration data is empty; {wanted}.")
    return Several(tuple(map(torch.cat, zip(*taken, strict=True))), signature)[:count]


def _slots_of(batch: Any, signature: Signature, wanted: str) -> tuple[Tensor, ...]:
    """The tensors of one batch, in the order of the slots."""
    slots = signature.slots
    if isinstance(batch, dict) and all(slot.name in batch for slot in slots):
        tensors = [batch[slot.name] for slot in slots]
    else:
        tensors = [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)][: len(slots)]
    shapes = [tuple(x.shape) for x in tensors]
    fits = [shape[1:] == slot.shape[1:] for shape, slot in zip(shapes, slots, strict=False)]
    if len(tensors) < len(slots) or not all(fits) or len({shape[0] for shape in shapes}) > 1:
        got = " and ".join(map(str, shapes)) or type(batch).__name__
        shaped = ", ".join(f"{slot.name} (n, {', '.join(map(str, slot.shape[1:]))})" for slot in slots)
        raise DataError(f"A batch of the calibration data has {got}, and the net reads {shaped}; {wanted}.")
    return tuple(tensors)
