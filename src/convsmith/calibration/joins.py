"""What stands behind a convolution: a BatchNorm of its own, a sum with a shortcut, a ReLU."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from convsmith.graph import Graph, Node
from convsmith.graph.call import Operand

RELUS = ("aten.relu.default", "aten.relu_.default")
SUMS = ("aten.add.Tensor", "aten.add_.Tensor")
# A norm's factor below this share of their mean hardly lets a response through: it is not asked to mend a sum.
FAINT = 1e-3


@dataclass(frozen=True)
class Behind:
    """What reads a convolution's answer.

    Attributes:
        norm: The BatchNorm between the two, where there is one.
        shortcut: The tensor that is added, where the answer goes into nothing but a sum.
        relu: Whether all of it goes into one ReLU.
    """

    norm: Node | None
    shortcut: str | None
    relu: bool

    @classmethod
    def of(cls, graph: Graph, node: Node) -> "Behind":
        """What stands behind a call of `graph`."""
        norm = graph.norm_behind(node)
        last, shortcut = norm or node, None
        reader = _only_reader(graph, last)
        if reader is not None and (added := _added(reader, last.name)) is not None:
            last, shortcut = reader, added
            reader = _only_reader(graph, last)
        return cls(norm, shortcut, reader is not None and reader.call.op in RELUS)


def _only_reader(graph: Graph, node: Node) -> Node | None:
    readers = graph.readers(node.name)
    return readers[0] if len(readers) == 1 and node.name not in graph.outputs else None


def _added(node: Node, name: str) -> str | None:
    """What a call adds to a tensor of one shape with it, if it does nothing else."""
    if node.call.op not in SUMS or node.call.args.get("alpha", 1) != 1:
        return None
    others = [x for x in node.call.operands if x.name != name]
    if len(others) != 1 or others[0].own or others[0].shape != node.call.out:
        return None
    return others[0].name


def affine(state: Mapping[str, Tensor], norm: Node) -> tuple[Tensor, Tensor]:
    """A BatchNorm in evaluation: y = factor x + term, per channel; state: the tensors of its net by name."""
    mean, var = (state[norm.call[name].name].double() for name in ("running_mean", "running_var"))
    factor = (var + norm.call["eps"]).rsqrt()
    if isinstance(norm.call["weight"], Operand):
        factor = factor * state[norm.call["weight"].name].double()
    term = -mean * factor
    return factor, term + state[norm.call["bias"].name].double() if isinstance(norm.call["bias"], Operand) else term


def undone(difference: Tensor, factor: Tensor | None) -> Tensor:
    """By how much responses (n, c, h, w) must change to change by `difference` behind a norm's factor (c,)."""
    if factor is None:
        return difference
    faint = FAINT * factor.square().mean()
    inverse = torch.where(factor != 0, factor / (factor.square() + faint), 0.0)
    return difference * inverse.to(difference).view(1, -1, *(1,) * (difference.dim() - 2))
