"""Labels of channels: made where weights make channels, joined where two are one, tied where two must go together."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from convsmith.graph import Graph, Node
from convsmith.graph.call import Operand
from convsmith.registry import Registry

Ints = NDArray[np.int64]
Role = Literal["filters", "columns", "channels"]
NONE = 0  # the label of what is no channel of any weight's making, and stays


@dataclass(frozen=True)
class Channels:
    """The labels along one dimension of a tensor; along the others it has the same."""

    dim: int
    labels: Ints


Answer = Channels | tuple[Channels | None, ...] | None
Seen = Sequence[Channels | None]


@dataclass(frozen=True)
class Cut:
    """A dimension of one of the model's own tensors whose indices are channels.

    Attributes:
        call: The name of the call that reads the tensor.
        module: The path of the module that makes this call.
        tensor: The tensor, by its path.
        dim: The dimension.
        labels: The channel of each index, NONE where it is none.
        role: `filters` make the channels, `columns` read them, `channels` act on each by itself.
    """

    call: str
    module: str
    tensor: Operand
    dim: int
    labels: Ints
    role: Role


class Union:
    """Disjoint sets of labels, the smallest label of each its root."""

    def __init__(self) -> None:
        self._above: dict[int, int] = {}

    def root(self, label: int) -> int:
        """The label that stands for all of its set."""
        path = []
        while (above := self._above.get(label, label)) != label:
            path.append(label)
            label = above
        self._above.update(dict.fromkeys(path, label))
        return label

    def roots(self, labels: Iterable[int]) -> Ints:
        """The same for many."""
        return np.array([self.root(int(label)) for label in labels], dtype=np.int64)

    def join(self, one: int, other: int) -> None:
        """Make two sets one."""
        low, high = sorted((self.root(one), self.root(other)))
        if low != high:
            self._above[high] = low


@dataclass
class Book:
    """What one pass over a graph writes down.

    Attributes:
        graph: The graph.
        same: Labels that are one channel.
        tied: Labels that can only go together; what is the same is tied.
        fixed: Labels that must stay, with the reason.
        cuts: Dimensions of the model's tensors that hold channels.
        summed: Labels that were added to others.
        gates: Labels of factors that have one value for a whole map.
        refused: Modules that make no channels that could go, with the reason.
        uses: By tensor of the model, how many calls read it.
        decided: By call, how a convolution's groups are cut, or along which dimension of several channels lie. It is
            kept where the same net is read narrowed.
    """

    graph: Graph
    same: Union = field(default_factory=Union)
    tied: Union = field(default_factory=Union)
    fixed: dict[int, str] = field(default_factory=dict)
    cuts: list[Cut] = field(default_factory=list)
    summed: set[int] = field(default_factory=set)
    gates: set[int] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)
    decided: dict[str, str | int] = field(default_factory=dict)
    _made: int = 0

    def make(self, count: int) -> Ints:
        """Labels for new channels."""
        labels = np.arange(self._made + 1, self._made + 1 + count)
        self._made += count
        return labels

    def fix(self, x: Channels | None, reason: str) -> None:
        """Channels that stay."""
        for label in () if x is None else x.labels.tolist():
            if label != NONE:
                self.fixed.setdefault(label, reason)

    def join(self, one: Ints, other: Ints, reason: str) -> None:
        """Channels that are one, index by index; what meets no channel stays, for the reason given."""
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            if a == b:
                continue
            if NONE in (a, b):
                self.fixed.setdefault(max(a, b), reason)
            else:
                self.same.join(a, b)
                self.tied.join(a, b)

    def tie(self, rows: Ints, reason: str) -> None:
        """Channels that go together: each column of (rows, columns)."""
        for row in rows[1:]:
            for a, b in zip(rows[0].tolist(), row.tolist(), strict=True):
                if NONE in (a, b):
                    self.fixed.setdefault(max(a, b), reason)
                else:
                    self.tied.join(a, b)

    def why_not(self, node: Node, tensor: Operand) -> str | None:
        """Why a tensor that a call reads cannot be cut, or None where it can."""
        if not tensor.own:
            return f"what it is multiplied with in {place(node)} depends on the input"
        if tensor.name in self.graph.constants:
            return f"{place(node)} reads a tensor made in forward, not a parameter as it stands"
        if node.name in self.graph.functional:
            return str(self.graph.functional_reason(node))
        if self.uses[tensor.name] > 1:
            return f"{tensor.name} is read by {self.uses[tensor.name]} calls"
        holder = tensor.name.rpartition(".")[0]
        return f"{holder} shares its weights with another module" if holder in self.graph.shared else None

    def cut(self, node: Node, tensor: Operand | None, dim: int, labels: Ints, role: Role) -> None:
        """A dimension of a tensor of the model's that holds these channels; they stay where it cannot be cut."""
        if tensor is None:
            return
        if reason := self.why_not(node, tensor):
            self.fix(Channels(dim, labels), reason)
            return
        self.cuts.append(Cut(node.name, node.module, tensor, dim, labels, role))


Rule = Callable[[Book, Node, Seen], Answer]
CHANNEL_RULES: Registry[Rule] = Registry("rule of channels for the ATen op")


def place(node: Node) -> str:
    """Where a call is made, for a sentence."""
    op = node.call.op.removeprefix("aten.").partition(".")[0]
    return f"{op} of {node.module}" if node.module else op


def several(x: Channels | None, node: Node) -> Answer:
    """The same for every output of a call."""
    return x if len(node.call.outs) == 1 else (x,) * len(node.call.outs)


def stay(book: Book, seen: Seen, reason: str) -> None:
    """Everything that a call reads stays."""
    for x in seen:
        book.fix(x, reason)
