"""One ONNX node as plain data, and the table of translations to ATen calls."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from convsmith.graph.call import Operand
from convsmith.registry import Registry

Shape = tuple[int, ...]
Array = NDArray[Any]


class Declined(Exception):  # noqa: N818 - no mistake of anyone's: the node is then shown by its name
    """Raised by a translation for a form of its op that no ATen call is equal to."""


class Misfit(Exception):  # noqa: N818 - the reader of the file says it, with the node's name
    """Raised by a translation where a node's tensors or attributes do not fit each other; tells what in a few words."""


class Emit(Protocol):
    """Writes the call of an ATen op with these output shapes and arguments, and answers its result."""

    def __call__(self, op: str, /, *outs: Shape, **args: Any) -> Operand:
        """As in `emit("aten.relu.default", x.shape, self=x)`."""


@dataclass(frozen=True, eq=False)
class Op:
    """A node that depends on the model's input; what an optional input or attribute left out is None.

    `outs` are the shapes of the outputs that are used, batch included. `values` holds small constants by tensor name.
    `steps` names the scales and zero points of quantizers, which the float net does not have.
    """

    type: str
    opset: int
    inputs: tuple[Operand | None, ...]
    outs: tuple[Shape, ...]
    attributes: Mapping[str, Any]
    values: Mapping[str, Array]
    steps: frozenset[str] = frozenset()

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
Sizes = Callable[[Op], Shape | list[Shape]]

TRANSLATIONS: Registry[Translation] = Registry("ONNX op")
SIZES: Registry[Sizes] = Registry("ONNX op of a stated shape")


def translates(*types: str, shape: Sizes | None = None) -> Callable[[Translation], Translation]:
    """Register a translation of ONNX ops: `def translation(op, emit)` answers the tensor, or tensors, it makes.

    Args:
        types: the ops, with their domain where it is not ONNX's own: `Relu`, `com.microsoft.Gelu`.
        shape: the shape of what the op makes (a list of them, for several outputs), for ops that ONNX does not infer.
            It is given the same `op`, whose `outs` are not known yet.
    """
    if shape is not None:
        SIZES.register(*types)(shape)
    return TRANSLATIONS.register(*types)


def name_of(node: NodeProto) -> str:
    """What an op is called in the tables: with its domain where that is not ONNX's own.

    >>> from onnx import helper
    >>> name_of(helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft"))
    'com.microsoft.Gelu'
    """
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
