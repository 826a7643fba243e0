"""What a budget counts: MACs, or latency measured on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Self

from convsmith.errors import BudgetError
from convsmith.graph import Graph, Node
from convsmith.latency.latencies import Latencies
from convsmith.plan import Milliseconds, Request
from convsmith.planning.candidates import Candidate, Trial
from convsmith.planning.ladder import Priced
from convsmith.planning.narrowing import Narrowing


@dataclass(frozen=True)
class Costs:
    """What a budget counts, multiply-accumulates or nanoseconds: the net's own, the limit, whose nanoseconds."""

    model: str
    total: int
    limit: float
    latencies: Latencies | None

    @classmethod
    def of(cls, graph: Graph, asked: Request, latencies: Latencies | None) -> Self:
        """Of a request; raises ConvsmithError where both or nothing is limited, or latency that nobody measured."""
        if (asked.max_macs is None) == (asked.max_latency is None):
            raise BudgetError("decompose: limit either MACs or latency; leave one of the two out.")
        name, factor = ("max_macs", asked.max_macs) if asked.max_latency is None else ("max_latency", asked.max_latency)
        if factor is None or not factor > 0:  # true for NaN too
            raise BudgetError(f"{name} is {factor}; give a part of the net's own that is more than 0, as 0.5.")
        if asked.max_latency is None:
            return cls(graph.model, graph.macs, factor * graph.macs, None)
        if latencies is None:
            raise BudgetError(
                "decompose: a limit on latency needs latencies; give those of cs.measure_latency(model, graph)."
            )
        total = round(1e9 * latencies.total)
        return cls(graph.model, total, factor * total, latencies)

    def layer(self, candidate: Candidate) -> int:
        """Of a convolution as it is."""
        return candidate.node.macs if self.latencies is None else round(1e9 * self.latencies.of([candidate.layer]))

    def narrowed(self, node: Node, narrowings: Sequence[Narrowing]) -> float:
        """Of a layer once groups of channels that it makes, changes or reads are narrower."""
        if self.latencies is None:
            return node.macs * prod(share for narrowing in narrowings for share in narrowing.shares(node.name).values())
        conv = node.conv_spec()
        nanoseconds = 1e9 * self.latencies.of([node.module])
        if conv is None or not any(narrowing.shares(node.name) for narrowing in narrowings):
            return nanoseconds
        made, read = (prod(narrowing.shares(node.name).get(dim, 1.0) for narrowing in narrowings) for dim in (0, 1))
        if conv.groups > 1:  # its groups go with its channels
            read = made
        other = replace(
            conv, in_channels=round(read * conv.in_channels), out_channels=round(made * conv.out_channels),
            groups=conv.groups if conv.groups == 1 else round(made * conv.groups),
        )  # fmt: skip
        return 1e9 * self.latencies.resized(node.module, conv, other, tuple(node.call.input.shape[2:]))

    def trials(self, candidate: Candidate, trials: Sequence[Trial]) -> list[int]:
        """Of blocks in its place."""
        if self.latencies is None:
            return [trial.macs for trial in trials]
        blocks = [trial.block for trial in trials]
        return [round(1e9 * s) for s in self.latencies.blocks(candidate.layer, candidate.spec, candidate.size, blocks)]

    def falling(self, candidate: Candidate) -> list[Priced[Trial]]:
        """Its trials where each costs less than all before: fewer MACs may take longer."""
        least, rungs = self.layer(candidate), []
        for trial, cost in zip(candidate.trials, self.trials(candidate, candidate.trials), strict=True):
            if cost < least:
                rungs.append(Priced(trial, cost))
                least = cost
        return rungs

    def change_ms(self, candidate: Candidate, trial: Trial) -> Milliseconds | None:
        """A layer's milliseconds before and after, where latency is what counts."""
        if self.latencies is None:
            return None
        return self.layer(candidate) / 1e6, self.trials(candidate, [trial])[0] / 1e6

    def change(self, chosen: Sequence[tuple[Candidate, Trial | None]]) -> int:
        """What the net costs more than before; None leaves a layer as it is."""
        return sum(self.trials(c, [trial])[0] - self.layer(c) for c, trial in chosen if trial is not None)

    def unmet(self, least: float, otherwise: str) -> BudgetError:
        """That no plan keeps the limit, and what to do if not allow more."""
        what = "MACs" if self.latencies is None else "latency"
        return BudgetError(
            f"{self.model}: the cheapest plan has {least / self.total:.3f} of its {what}, more than the "
            f"{self.limit / self.total:.3f} allowed; allow more or {otherwise}."
        )
