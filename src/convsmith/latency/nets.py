"""How long a whole net takes in a target, and what another one takes beside it."""

from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from convsmith.errors import ConvsmithError
from convsmith.formats import FORMATS, evaluation_copy, quiet, reason, trace
from convsmith.graph import Graph
from convsmith.graph.signature import Signature
from convsmith.latency.clock import Clock
from convsmith.latency.interleaved import Run, take_turns
from convsmith.latency.targets import RUN_ERRORS, Called, Subject, set_threads, started

SECONDS_A_NET = 1.5


class NetTimer:
    """Runs of a net in the target of a clock, beside which others are measured."""

    def __init__(self, model: nn.Module, graph: Graph, clock: Clock) -> None:
        self._model, self._graph, self.clock = model, graph, clock

    @cached_property
    def run(self) -> Run:
        """A run of the net; raises ConvsmithError where it does not run in the target."""
        return self._ready(self._model)

    def beside(self, other: nn.Module) -> tuple[float, float]:
        """Median seconds of the net and of another one that takes the same inputs, in turns.

        >>> import tempfile, convsmith as cs
        >>> from convsmith.target import Target
        >>> net, x = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU()), torch.zeros(1, 3, 64, 64)
        >>> clock = Clock(Target("onnxruntime"), file=Path(tempfile.mkdtemp()) / "latency.jsonl")
        >>> long, short = NetTimer(net, cs.capture(net, x), clock).beside(nn.Conv2d(3, 1, 1))
        >>> short < long
        True
        """
        runs = {"net": self.run, "other": self._ready(other)}
        target = self.clock.target
        with torch.inference_mode(), set_threads(target.threads):
            for run in runs.values():
                run()
            times = take_turns(runs, SECONDS_A_NET, target.threads, self.clock.reads)
        return float(np.median(times["net"])), float(np.median(times["other"]))

    def _ready(self, model: nn.Module) -> Run:
        target, runtime = self.clock.target, self.clock.runtime
        call = self._graph.signature
        inputs = [image for slot in call.slots for image in self.clock.images(slot.shape[1:])]
        try:
            with quiet(), TemporaryDirectory() as folder:
                subject = _subject(model, call, runtime.reads, Path(folder))
                with torch.inference_mode(), set_threads(target.threads):
                    return started(subject, runtime, inputs, target.threads)
        except RUN_ERRORS as error:
            raise ConvsmithError(
                f"{self._graph.model} cannot be timed in {target}: {reason(error)}; choose another --target."
            ) from error


def _subject(model: nn.Module, call: Signature, reads: str, folder: Path) -> Subject:
    replica = evaluation_copy(model)
    if reads == "module":
        return Subject(Called.of(replica, call))
    FORMATS[".onnx"].write(trace(replica, call), folder / "net.onnx", {})
    return Subject(replica, folder / "net.onnx")
