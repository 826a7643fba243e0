"""What a budget counts, MACs or measured latency, and which layers give way to it first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from convsmith.blocks import Block
from convsmith.errors import ConvsmithError
from convsmith.graph import Graph, Node
from convsmith.latency import Latencies
from convsmith.plan import Budget


@dataclass(frozen=True)
class Trial:
    """A block tried in a convolution's place: what it costs, and how much of its 3DRF it keeps (1: Quality)."""

    block: Block
    params: int
    macs: int
    share: float
    compact: bool
    found: int = 0  # of how many that the search found it was taken

    @property
    def quality(self) -> bool:
        """Whether it sees as much as the convolution."""
        return self.share >= 1


@dataclass(frozen=True)
class Candidate:
    """A convolution that can be replaced, what it costs itself, and its trials, dearest first."""

    node: Node
    params: int
    trials: tuple[Trial, ...]

    @property
    def layer(self) -> str:
        """Its module path."""
        return self.node.module


@dataclass(frozen=True)
class Costs:
    """What a budget counts, multiply-accumulates or nanoseconds: the net's own, the limit, whose nanoseconds."""

    model: str
    total: int
    limit: float
    latencies: Latencies | None

    @classmethod
    def of(cls, graph: Graph, budget: Budget, latencies: Latencies | None) -> Self:
        """Of a budget; raises ConvsmithError on one that limits both or nothing, and on latency nobody measured."""
        if (budget.max_macs is None) == (budget.max_latency is None):
            raise ConvsmithError("decompose: limit either MACs or latency; leave one of the two out.")
        name, factor = (
            ("max_macs", budget.max_macs) if budget.max_latency is None else ("max_latency", budget.max_latency)
        )
        if factor is None or not factor > 0:  # true for NaN too
            raise ConvsmithError(f"{name} is {factor}; give a part of the net's own that is more than 0, as 0.5.")
        if budget.max_latency is None:
            return cls(graph.model, graph.macs, factor * graph.macs, None)
        if latencies is None:
            raise ConvsmithError(
                "decompose: a limit on latency needs latencies; give those of cs.measure_latency(model, graph)."
            )
        total = round(1e9 * latencies.total)
        return cls(graph.model, total, factor * total, latencies)

    def layer(self, candidate: Candidate) -> int:
        """Of a convolution as it is."""
        return candidate.node.macs if self.latencies is None else round(1e9 * self.latencies.of([candidate.layer]))

    def trials(self, candidate: Candidate, trials: Sequence[Trial]) -> list[int]:
        """Of blocks in its place."""
        spec = candidate.node.conv_spec()
        if self.latencies is None or spec is None:
            return [trial.macs for trial in trials]
        height, width = candidate.node.call.input.shape[2:]
        blocks = [trial.block for trial in trials]
        return [round(1e9 * s) for s in self.latencies.blocks(candidate.layer, spec, (height, width), blocks)]

    def change_ms(self, chosen: Sequence[tuple[Candidate, Trial | None]]) -> tuple[float, float] | None:
        """The net's milliseconds before and after, where latency is what counts."""
        if self.latencies is None:
            return None
        changes = [self.trials(c, [trial])[0] - self.layer(c) for c, trial in chosen if trial is not None]
        return self.total / 1e6, (self.total + sum(changes)) / 1e6

    def unmet(self, least: float) -> ConvsmithError:
        """That no plan keeps the limit."""
        what = "MACs" if self.latencies is None else "latency"
        return ConvsmithError(
            f"{self.model}: the cheapest plan has {least / self.total:.3f} of its {what}, more than the "
            f"{self.limit / self.total:.3f} allowed; allow more or choose a cheaper block."
        )


def keep_within(candidates: Sequence[Candidate], costs: Costs) -> list[Trial | None]:
    """Every layer starts as it is; the one of highest relative cost gives way, rank by rank, until the net fits."""
    ladders = [_falling(candidate, costs) for candidate in candidates]
    steps = [0] * len(ladders)
    total = costs.total
    while total > costs.limit:
        open_ = [i for i, ladder in enumerate(ladders) if steps[i] + 1 < len(ladder)]
        if not open_:
            raise costs.unmet(total)
        i = max(open_, key=lambda j: (ladders[j][steps[j]][1] / ladders[j][0][1], ladders[j][steps[j]][1]))
        total += ladders[i][steps[i] + 1][1] - ladders[i][steps[i]][1]
        steps[i] += 1
    return [ladder[step][0] for ladder, step in zip(ladders, steps, strict=True)]


def _falling(candidate: Candidate, costs: Costs) -> list[tuple[Trial | None, int]]:
    """The layer as it is, and its trials where each costs less than all before: fewer MACs may take longer."""
    ladder: list[tuple[Trial | None, int]] = [(None, costs.layer(candidate))]
    for trial, cost in zip(candidate.trials, costs.trials(candidate, candidate.trials), strict=True):
        if cost < ladder[-1][1]:
            ladder.append((trial, cost))
    return ladder
