"""One ONNX node as plain data, and the table of translations to ATen calls."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from convsmith.graph.call import Operand
from convsmith.registry import Registry

Shape = tuple[int, ...]
Array = NDArray[Any]


class Declined(Exception):  # noqa: N818 - no mistake of anyone's: the node is then shown by its name
    """Raised by a translation for a form of its op that no ATen call is equal to."""


class Emit(Protocol):
    """Writes the call of an ATen op with these output shapes and arguments, and answers its result."""

    def __call__(self, op: str, /, *outs: Shape, **args: Any) -> Operand:
        """As in `emit("aten.relu.default", x.shape, self=x)`."""


@dataclass(frozen=True, eq=False)
class Op:
    """A node that depends on the model's input; what an optional input or attribute left out is None.

    `outs` are the shapes of the outputs that are used, batch included; `values` holds small constants by tensor name.
    """

    type: str
    opset: int
    inputs: tuple[Operand | None, ...]
    outs: tuple[Shape, ...]
    attributes: Mapping[str, Any]
    values: Mapping[str, Array]

    def __getitem__(self, place: int) -> Operand:
        """An input that must be there."""
        operand = self.get(place)
        if operand is None:
            raise Declined
        return operand

    def get(self, place: int) -> Operand | None:
        """An input, or None."""
        return self.inputs[place] if place < len(self.inputs) else None

    @property
    def out(self) -> Shape:
        """The shape of the first output."""
        return self.outs[0]

    def value(self, place: int) -> Array | None:
        """The numbers of a constant input, None where it is left out; declined where the net computes them."""
        operand = self.get(place)
        if operand is None:
            return None
        if operand.name not in self.values:
            raise Declined
        return self.values[operand.name]

    def setting(self, name: str, place: int) -> list[int] | None:
        """Whole numbers that older opsets keep in an attribute and newer ones in an input."""
        if name in self.attributes:
            return list(self.attributes[name])
        value = self.value(place)
        return None if value is None else [int(number) for number in np.atleast_1d(value)]

    def dims(self, numbers: Sequence[int]) -> list[int]:
        """Dimensions of the first input, counted from the front."""
        return [number % len(self[0].shape) for number in numbers]


Translation = Callable[[Op, Emit], Operand | list[Operand]]

TRANSLATIONS: Registry[Translation] = Registry("ONNX op")


def translates(*types: str) -> Callable[[Translation], Translation]:
    """Register a translation of ONNX ops: `def translation(op, emit)` answers the tensor, or tensors, it makes."""
    return TRANSLATIONS.register(*types)
