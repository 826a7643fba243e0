"""How long a model takes on this machine, its modules and blocks in their place: what a limit on latency is kept by."""

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

from convsmith.formats import evaluation_copy
from convsmith.graph import Graph
from convsmith.latency.in_target import latencies_in
from convsmith.latency.interleaved import FEWEST, ROUNDS
from convsmith.latency.latencies import Latencies, channels_last
from convsmith.progress import Progress, silent
from convsmith.target import Target

SECONDS = 2.0  # of readings of a whole model


def measure_latency(
    model: nn.Module,
    graph: Graph,
    *,
    target: Target | str | None = None,
    file: Path | None = None,
    seconds: float = SECONDS,
    progress: Progress = silent,
) -> Latencies:
    """Time a model, its layers, and blocks in their place, where it is to be fast.

    Without a target modules are timed in eager torch on the CPU, in float32, evaluation mode and channels_last, one
    image at a time. In a target the net is timed as a whole there, and each of its convolutions between neighbours like
    its own. A verdict on a whole model is `bench`'s; these times serve limits on latency.

    Args:
        model: The module.
        graph: Its captured graph, which tells the shape of the image.
        target: As `cs.Target.parse` takes it.
        file: With a target, where times of layers are kept for later runs; by default in the user's cache folder.
        seconds: Without a target, about how long to measure; at least nine rounds are run.
        progress: Told of every round.

    Returns:
        Seconds by module path, medians over the rounds.

    Raises:
        ConvsmithError: For a target that there is not, or that the model does not run in.

    >>> from convsmith.graph.capture import capture
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> found = measure_latency(net, capture(net, torch.zeros(1, 3, 16, 16)), seconds=0.01)
    >>> found.of(["0", "1"]) < found.total
    True
    """
    if target is not None:
        return latencies_in(model, graph, Target.parse(target), file, progress)
    return _of_modules(model, graph, seconds, progress)


def _of_modules(model: nn.Module, graph: Graph, seconds: float, progress: Progress) -> Latencies:
    replica = channels_last(evaluation_copy(model), len(graph.inputs[0].shape) - 2)
    args, named = graph.signature.call(graph.signature.drawn(1, torch.Generator().manual_seed(0)))
    rounds: list[dict[str, float]] = []
    end = perf_counter() + seconds
    with torch.inference_mode():
        replica(*args, **named)
        watch = _Watch(replica)
        while len(rounds) < FEWEST or (len(rounds) < ROUNDS and perf_counter() < end):
            progress("measuring latency by module", len(rounds), ROUNDS)
            replica(*args, **named)
            rounds.append(watch.taken())
    return Latencies({path: float(np.median([each[path] for each in rounds])) for path in rounds[0]})


class _Watch:
    """Adds up the time between a module's first and last instruction, by path, over all of its calls."""

    def __init__(self, model: nn.Module) -> None:
        self._seconds: dict[str, float] = {}
        self._began: dict[str, float] = {}
        for path, module in model.named_modules():
            module.register_forward_pre_hook(self._start(path))
            module.register_forward_hook(self._stop(path))

    def taken(self) -> dict[str, float]:
        """What has been added up since it was asked last."""
        taken, self._seconds = self._seconds, {}
        return taken

    def _start(self, path: str) -> Any:
        def start(module: nn.Module, args: Any) -> None:
            self._began[path] = perf_counter()

        return start

    def _stop(self, path: str) -> Any:
        def stop(module: nn.Module, args: Any, answer: Any) -> None:
            self._seconds[path] = self._seconds.get(path, 0.0) + perf_counter() - self._began[path]

        return stop
