"""What analyze works out of a model: scores, advice, and where asked for the time of each layer."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from convsmith.cli.groups import Counted
from convsmith.cli.terminal import Terminal
from convsmith.errors import ConvsmithError
from convsmith.graph import Graph
from convsmith.latency.measure import measure_latency
from convsmith.load import Wish, load, load_graph
from convsmith.load.files import FILES
from convsmith.score.advice import Advice, advise
from convsmith.score.metric import score
from convsmith.score.records import Scores
from convsmith.target import Target

Milliseconds = tuple[float | None, ...]  # by layer, and of the whole net


@dataclass(frozen=True)
class Look:
    """How models are looked at."""

    terminal: Terminal
    counted: Counted
    timed: bool
    trust: bool
    target: Target | None = None
    latency_file: Path | None = None

    def at(self, reference: str, wish: Wish) -> tuple[tuple[Scores, Advice], dict[str, Any], Milliseconds | None]:
        """Scores and advice, the two as JSON, and milliseconds where they are asked for."""
        graph, times = (
            self._timed(reference, wish) if self.timed else (load_graph(reference, wish, trust=self.trust), None)
        )
        self.terminal.progress(f"scoring {reference}", 0, 1)
        scores = score(graph, **asdict(self.counted))
        advice = advise(graph, scores)
        record = advice.added_to(scores)
        for layer in record["layers"]:
            layer["share"] = layer["macs"] / scores.macs if scores.macs else 0.0
        if times is not None:
            for layer, ms in zip(record["layers"], times, strict=False):
                layer["ms"] = ms
            record["totals"]["ms"] = times[-1]
        return (scores, advice), record, times

    def _timed(self, reference: str, wish: Wish) -> tuple[Graph, Milliseconds]:
        if Path(reference).suffix.lower() in FILES:
            raise ConvsmithError(f"{reference}: layers of a file cannot be timed; use `convsmith bench`, or its model.")
        loaded = load(reference, wish, trust=self.trust)
        self.terminal.notes(loaded.notes)
        graph = loaded.graph()
        latencies = measure_latency(
            loaded.model, graph, target=self.target, file=self.latency_file, progress=self.terminal.progress
        )
        layers = (None if seconds is None else 1e3 * seconds for seconds in latencies.layers(loaded.model, graph))
        return graph, (*layers, 1e3 * latencies.total)
