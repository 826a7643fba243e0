"""What a net would be with fewer channels: shapes, parameters and multiply-accumulates, told without building it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, Self

import numpy as np

from convsmith.errors import PlanError
from convsmith.graph import Graph, Node
from convsmith.graph.call import RULES, Operand
from convsmith.plan import Refusal
from convsmith.structure.channel_groups import ChannelGroup, groups_of
from convsmith.structure.channels import Channels, Cut, trace

Gone = frozenset[int]
NOTHING: Gone = frozenset()


@dataclass(frozen=True, eq=False, repr=False)
class Widths:
    """A graph with its groups of channels, and what it costs without some channels.

    Attributes:
        graph: The captured model.
        groups: Its groups, in order of execution.
        refusals: Layers whose channels all stay, with the reason.
        channels: By call, the channels of its output.
        cuts: Dimensions of the model's tensors that hold channels.
        decided: What the pass decided of groups of convolutions, and of views.

    >>> import torch, convsmith as cs
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3))
    >>> widths = Widths.of(cs.capture(net, torch.zeros(1, 3, 8, 8)))
    >>> (group,) = widths.groups
    >>> gone = widths.without(group, range(4))
    >>> widths.cost(group), widths.cost(group, gone)
    ((512, 12384), (256, 6192))
    """

    graph: Graph
    groups: tuple[ChannelGroup, ...]
    refusals: tuple[Refusal, ...]
    channels: Mapping[str, Channels]
    cuts: tuple[Cut, ...]
    decided: Mapping[str, str | int]

    @classmethod
    def of(cls, graph: Graph, decided: Mapping[str, str | int] | None = None) -> Self:
        """Of a captured model; decided: what was decided in a pass over the same net with other widths."""
        book, known = trace(graph, decided)
        groups, refusals = groups_of(graph, book)
        rooted = {name: Channels(x.dim, book.same.roots(x.labels)) for name, x in known.items()}
        cuts = tuple(replace(cut, labels=book.same.roots(cut.labels)) for cut in book.cuts)
        return cls(graph, tuple(groups), tuple(refusals), rooted, cuts, book.decided)

    def group(self, name: Sequence[str]) -> ChannelGroup:
        """The group of a name; raises PlanError where there is none, with the reason where one is known."""
        for group in self.groups:
            if group.name == tuple(name):
                return group
        shown = " + ".join(name)
        for refusal in self.refusals:
            if refusal.layer in name:
                raise PlanError(f"{shown} cannot be narrowed: {refusal.layer}: {refusal.reason}; take that edit out.")
        near = next((" + ".join(g.name) for g in self.groups if set(g.name) & set(name)), None)
        hint = f"; its group is {near}" if near else "; see convsmith's narrow for the groups"
        raise PlanError(f"{shown} is no group of channels of this model{hint}.")

    def without(self, group: ChannelGroup, kept: Collection[int], gone: Gone = NOTHING) -> Gone:
        """What is gone when of a group these channels are kept, beside what was gone before."""
        return gone | {group.labels[channel] for channel in range(group.width) if channel not in set(kept)}

    def cost(self, group: ChannelGroup, gone: Gone = NOTHING) -> tuple[int, int]:
        """Parameters and multiply-accumulates of all that holds a group's channels, without those gone."""
        calls = {part.call for part in group.parts}
        macs = sum(self.macs(node, gone) for node in self.graph.nodes if node.name in calls)
        tensors = {part.tensor for part in group.parts} & self.graph.parameters
        return sum(prod(self.size(self._own[name], gone)) for name in tensors), macs

    def macs(self, node: Node, gone: Gone) -> int:
        """Multiply-accumulates of a call without the channels gone."""
        if not node.kind:
            return 0
        args = {name: self._narrowed(value, gone) for name, value in node.call.args.items()}
        call = replace(node.call, args=args, outs=(self.shape(node.name, gone), *node.call.outs[1:]))
        return RULES[call.op].macs(call)

    def shape(self, name: str, gone: Gone) -> tuple[int, ...]:
        """The shape of a tensor without the channels gone."""
        x, shape = self.channels.get(name), self.graph.shapes[name]
        return shape if x is None else _cut(shape, [(x.dim, x.labels)], gone)

    def size(self, tensor: Operand, gone: Gone) -> tuple[int, ...]:
        """The same of one of the model's own tensors."""
        return _cut(tensor.shape, [(cut.dim, cut.labels) for cut in self.by_tensor.get(tensor.name, ())], gone)

    @cached_property
    def by_tensor(self) -> Mapping[str, tuple[Cut, ...]]:
        """The dimensions that hold channels, by tensor."""
        cuts: dict[str, tuple[Cut, ...]] = {}
        for cut in self.cuts:
            cuts[cut.tensor.name] = (*cuts.get(cut.tensor.name, ()), cut)
        return cuts

    @cached_property
    def _own(self) -> Mapping[str, Operand]:
        return {cut.tensor.name: cut.tensor for cut in self.cuts}

    def _narrowed(self, value: Any, gone: Gone) -> Any:
        if isinstance(value, list | tuple):
            return [self._narrowed(item, gone) for item in value]
        if not isinstance(value, Operand):
            return value
        return replace(value, shape=self.size(value, gone) if value.own else self._read(value, gone))

    def _read(self, operand: Operand, gone: Gone) -> tuple[int, ...]:
        known = self.channels.get(operand.name)
        return operand.shape if known is None else self.shape(operand.name, gone)


def stay(labels: Iterable[int], gone: Gone) -> list[int]:
    """The places of what is not gone."""
    return [place for place, label in enumerate(labels) if label not in gone]


def _cut(shape: Sequence[int], dims: Iterable[tuple[int, Any]], gone: Gone) -> tuple[int, ...]:
    sizes = list(shape)
    for dim, labels in dims:
        sizes[dim] = len(stay(np.asarray(labels).tolist(), gone)) if gone else sizes[dim]
    return tuple(sizes)
