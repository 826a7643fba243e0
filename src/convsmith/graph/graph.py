"""A captured model: a graph of ATen calls, their costs, and what their rules answer."""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import Any

from torch import Tensor

from convsmith.graph.call import RULES, Operand
from convsmith.graph.node import GETITEM, Node, is_norm
from convsmith.graph.signature import Signature
from convsmith.markup import table
from convsmith.reach import Reach


@dataclass(frozen=True, repr=False)
class Graph:
    """A captured model: the calls in order, its inputs and outputs, and what its modules hold.

    Attributes:
        model: The name of the net.
        inputs: Its inputs, in order.
        nodes: Its calls, in order of execution.
        outputs: Names of the tensors that it returns.
        params: All learnable scalars, shared ones counted once.
        sequences: By path of an nn.Sequential, its children in order.
        calls: How often each module ran.
        shared: Modules whose parameters another module holds too.
        convolutions: Plain convolution modules, whose weight is what convolves.
        constants: Tensors that calls read and that are neither input, parameter nor buffer.
        aside: Multiply-accumulates of calls that make such tensors anew in every run.
        signature: What the model is called with.
        notes: Sentences on how far the capture holds.
        tables: Modules that make such tensors anew.
        functional: By call, the parameter that convolves without a convolution module.
        parameters: Paths of the learnable tensors, of shared ones the first.

    >>> import torch, convsmith as cs
    >>> graph = cs.capture(torch.nn.Conv2d(3, 8, 3), torch.zeros(1, 3, 8, 8))
    >>> graph.params, graph.macs, len(graph.layers)
    (224, 7776, 1)
    """

    model: str
    inputs: tuple[Operand, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    params: int
    sequences: Mapping[str, tuple[str, ...]] = field(repr=False)
    calls: Mapping[str, int] = field(repr=False)
    shared: frozenset[str] = field(repr=False)
    convolutions: frozenset[str] = field(repr=False, default=frozenset())
    constants: Mapping[str, Tensor] = field(repr=False, default_factory=dict)
    aside: int = 0
    signature: Signature = field(repr=False, default_factory=Signature)
    notes: tuple[str, ...] = ()
    tables: frozenset[str] = field(repr=False, default=frozenset())
    functional: Mapping[str, str] = field(repr=False, default_factory=dict)
    parameters: frozenset[str] = field(repr=False, default=frozenset())

    def __repr__(self) -> str:
        cost = f"{self.params / 1e6:.3g}M parameters, {self.macs / 1e6:.4g}M MACs"
        return f"Graph({self.model} on {_shapes(self)}: {len(self.layers)} layers, {cost})"

    def _repr_html_(self) -> str:
        """For notebooks: the totals, and a layer a row."""
        rows = [
            (node.module, node.kind, "x".join(map(str, node.call.out[1:])), f"{node.params:,}", f"{node.macs:,}")
            for node in self.layers
        ]
        return f"<p>{escape(repr(self))}</p>" + table(("layer", "kind", "out", ">params", ">MACs"), rows)

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """Nodes by the name of the tensor they make."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor, batch included."""
        return {x.name: x.shape for x in self.inputs} | {node.name: node.call.out for node in self.nodes}

    @property
    def layers(self) -> list[Node]:
        """The calls that multiply weights or activations."""
        return [node for node in self.nodes if node.kind]

    @cached_property
    def unknown_ops(self) -> dict[str, int]:
        """Ops without a rule, or called in a way that their rule has no answer for, and how often each is."""
        _, lost = self._from_input
        unanswered = (n for n in self.nodes if n.name in lost and not lost.keys() & self.sources(n))
        loose = {node.name for node in self.nodes if node.loose}
        unruled = (n for n in self.nodes if not n.ruled and not loose.intersection(self.sources(n)))
        return dict(Counter(node.call.op for node in dict.fromkeys([*unruled, *unanswered])))

    @property
    def macs(self) -> int:
        """Multiply-accumulates, batch 1, as torch's FlopCounterMode counts them, halved."""
        return sum(node.macs for node in self.nodes) + self.aside

    @property
    def fixed_macs(self) -> int:
        """The same without calls whose sizes depend on values: alike for every input and all weights."""
        return self.macs - sum(node.macs for node in self.nodes if node.loose)

    @cached_property
    def ends(self) -> tuple[str, ...]:
        """The outputs, and in the place of those whose sizes depend on values what such calls read."""
        loose = {node.name for node in self.nodes if node.loose}
        read = [name for node in self.nodes if node.loose for name in self.sources(node)]
        return tuple(dict.fromkeys(name for name in (*self.outputs, *read) if name not in loose))

    @property
    def ptflops(self) -> int:
        """Multiply-accumulates as ptflops counts them."""
        return sum(node.ptflops for node in self.nodes)

    @property
    def fingerprint(self) -> str:
        """Tells this net on this input from others: a hash of its layers' paths, ops and fixed shapes."""
        fixed = (node for node in self.layers if not node.loose)
        layers = [(n.module, n.call.op, [x.shape for x in n.call.operands], n.call.out) for n in fixed]
        return hashlib.sha256(repr(layers).encode()).hexdigest()[:16]

    @cached_property
    def cuts(self) -> tuple[str, ...]:
        """The tensors that everything behind them must pass through, the input first."""
        order = [x.name for x in self.inputs] + [node.name for node in self.nodes]
        place = {name: i for i, name in enumerate(order)}
        last = dict.fromkeys(order, -1) | dict.fromkeys(self.outputs, len(order))
        for node in self.nodes:
            for name in self.sources(node):
                last[name] = max(last[name], place[node.name])
        open_until, cuts = -1, []
        for i, name in enumerate(order):
            if open_until <= i:  # every earlier tensor is used up by now
                cuts.append(name)
            open_until = max(open_until, last[name])
        return tuple(cuts)

    def sources(self, node: Node) -> list[str]:
        """The names of the tensors a call reads, the model's own left out."""
        return node.call.sources

    def readers(self, name: str) -> list[Node]:
        """The calls that read a tensor."""
        return [node for node in self.nodes if name in self.sources(node)]

    def norm_behind(self, node: Node) -> Node | None:
        """The BatchNorm that alone reads what a call makes and keeps statistics of nothing else, if there is one."""
        readers = self.readers(node.name)
        if len(readers) > 1 or node.name in self.outputs or not any(map(is_norm, readers)):
            return None
        kept = readers[0].call["running_mean"].name
        calls = [norm for norm in filter(is_norm, self.nodes) if norm.call["running_mean"].name == kept]
        return readers[0] if len(calls) == 1 else None

    def holds_mean(self, node: Node) -> bool:
        """Whether a convolution's bias, or the BatchNorm behind, can make good the mean of what a block would lack."""
        return node.call["bias"] is not None or self.norm_behind(node) is not None

    def before(self, node: Node) -> str:
        """The last tensor through which everything that a call reads has come: its stage's or unit's entry."""
        order = {name: i for i, name in enumerate(self.shapes)}
        first = min(order[name] for name in self.sources(node))
        return max((cut for cut in self.cuts if order[cut] <= first), key=order.__getitem__)

    def reaches(
        self,
        source: str | None = None,
        wanted: Collection[str] | None = None,
        inside: "Mapping[str, Graph] | None" = None,
    ) -> dict[str, Reach]:
        """The reach of every tensor behind `source`, as far as it is known.

        By default each is from the model's first input, and where it depends on none of that, from the next.

        wanted: the tensors asked for, what they are made from among them; None for all. inside: by the name of a call,
        the calls that are to stand in its place.
        """
        start = self.inputs[0].name if source is None else source
        if not inside and (source is None or (start == self.inputs[0].name and len(self.inputs) == 1)):
            answers, _ = self._from_input
        else:
            nodes = self.nodes if wanted is None else self.leading_to(wanted)
            source_of = (
                self._source if start == self.inputs[0].name else lambda name: Reach.source(self.shapes[name][1:])
            )
            answers, _ = self._answers({start: source_of(start)}, nodes, inside or {})
        return {name: reach for name, reach in answers.items() if isinstance(reach, Reach)}

    def functional_reason(self, node: Node) -> str | None:
        """Why no block can stand in for a convolution by a function, and what would help; None where it is a module."""
        weight = self.functional.get(node.name)
        if weight is None:
            return None
        holder = weight.rpartition(".")[0]
        helps = f"call {holder} itself" if holder in self.convolutions else "hold it in an nn.Conv2d module"
        return f"its weight {weight} is given to a function; {helps} to have it replaced"

    def why_unknown(self, node: Node) -> str:
        """Why it is not known what a call sees: what stands before it, or that no input comes to it."""
        _, lost = self._from_input
        if node.name not in lost:
            return "what it reads comes from no input with channels"
        cause = self.by_name[lost[node.name]]
        if cause.loose:
            return f"it stands behind {cause.call.op}, where sizes depend on values: what it sees is unknown"
        return f"it stands behind an op without a rule ({cause.call.op}): what it sees is unknown"

    def _source(self, first: str) -> Reach:
        """The model's input seeing itself; a waveform (T, 1) or (T,) that no convolution reads as it is has a map."""
        shape = self.shapes[first][1:]
        convs = [node for node in self.layers if node.kind == "conv"]
        if len(shape) > 2 or not convs or shape[1:] not in ((), (1,)) or any(first in self.sources(n) for n in convs):
            return Reach.source(shape)
        wave = Reach.source((1, shape[0]))
        return wave.permute((0, 2, 1)) if len(shape) == 2 else wave.drop(1)

    @cached_property
    def _from_input(self) -> tuple[dict[str, Any], dict[str, str]]:
        """From the first input, and behind others from the first of them that a call depends on."""
        known: dict[str, Any] = {}
        lost: dict[str, str] = {}
        for source in (x for x in self.inputs if len(x.shape) > 1):
            rest = [node for node in self.nodes if node.name not in known and node.name not in lost]
            answers, missed = self._answers({source.name: self._source(source.name)}, rest, {})
            known, lost = answers | known, missed | lost
        return known, lost

    def _answers(
        self, start: Mapping[str, Any], nodes: Sequence[Node], inside: "Mapping[str, Graph]"
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """What the rules answer behind `start` (several reaches for several outputs), and what they cannot, from where.

        Lost is also what joins such with something known: half an answer would be a guess.
        """
        known = dict(start)
        lost: dict[str, str] = {}
        for node in nodes:
            sources = self.sources(node)
            if not node.known or lost.keys() & sources:
                lost[node.name] = next((lost[name] for name in sources if name in lost), node.name)
            elif any(name in known for name in sources):
                other = inside.get(node.name)
                answer = _answer(node, known) if other is None else other._passed(known[node.call.input.name])
                if answer is None:
                    lost[node.name] = node.name
                else:
                    known.setdefault(node.name, answer)
        return known, lost

    def _passed(self, reach: Reach) -> Reach | None:
        """The reach of the only output, where the only input has this one."""
        known, _ = self._answers({self.inputs[0].name: reach}, self.nodes, {})
        answer: Reach | None = known.get(self.outputs[0])
        return answer

    def leading_to(self, wanted: Collection[str]) -> list[Node]:
        """The calls that tensors are made by, directly or on the way, in order."""
        needed, leading = set(wanted), []
        for node in reversed(self.nodes):
            if node.name in needed:
                needed.update(self.sources(node))
                leading.append(node)
        return leading[::-1]


def _shapes(graph: Graph) -> str:
    return " and ".join("x".join(map(str, source.shape[1:])) for source in graph.inputs)


def _answer(node: Node, known: Mapping[str, Any]) -> Any:
    seen = [known.get(operand.name) for operand in node.call.operands]
    if node.call.op == GETITEM:
        return known[node.call.input.name][node.call["index"]]
    return RULES[node.call.op].reach(node.call, seen)
