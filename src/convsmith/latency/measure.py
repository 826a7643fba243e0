"""How long a model's modules take on this machine, and blocks in their place: what a limit on latency is kept by."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

from convsmith.blocks import Block
from convsmith.errors import ConvsmithError
from convsmith.graph import Graph
from convsmith.graph.plain import copied, plain
from convsmith.graph.wrappers import unwrapped
from convsmith.kernels.spec import ConvSpec
from convsmith.latency.interleaved import FEWEST, ROUNDS, take_turns
from convsmith.progress import Progress, silent

SECONDS = 2.0  # of readings of a whole model
SECONDS_A_BLOCK = 0.05

# Channels last, by the axes of a map.
LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}

Key = tuple[ConvSpec, tuple[int, ...], str]


class Latencies:
    """Seconds that a model's modules take for one image in eager torch, and blocks in their place: medians of rounds.

    modules: by path, with all that a module calls inside; "" is the model itself. No record: what is measured of blocks
    is kept as they are asked for, as multiples of the convolutions that they stand in for.
    """

    def __init__(self, modules: Mapping[str, float]) -> None:
        self.modules = modules
        self.ratios: dict[Key, float] = {}

    @property
    def total(self) -> float:
        """Of the whole model."""
        return self.modules[""]

    def of(self, paths: Iterable[str]) -> float:
        """Of several modules; raises ConvsmithError where one is never called, so that nobody knows."""
        known = list(paths)
        if missing := [path for path in known if path not in self.modules]:
            raise ConvsmithError(f"{missing[0]} is never called as a module, so its latency is unknown; limit MACs.")
        return sum(self.modules[path] for path in known)

    def blocks(self, layer: str, conv: ConvSpec, size: tuple[int, ...], blocks: Sequence[Block]) -> list[float]:
        """Of each block in a layer's place: its time as a multiple of the convolution's, both run in turns.

        Weights are random, and convolutions alike on maps of one size are measured once.
        """
        wanted = [block for block in blocks if (conv, size, str(block)) not in self.ratios]
        if wanted:
            modules = {"": conv.standard()} | {str(b): b.build(conv) for b in wanted}
            found = median_seconds(modules, (conv.in_channels, *size), SECONDS_A_BLOCK)
            self.ratios.update({(conv, size, name): seconds / found[""] for name, seconds in found.items() if name})
        own = self.of([layer])
        return [own * self.ratios[conv, size, str(block)] for block in blocks]


def measure_latency(
    model: nn.Module, graph: Graph, *, seconds: float = SECONDS, progress: Progress = silent
) -> Latencies:
    """Time a model's modules on the CPU, in evaluation mode and channels_last, one image at a time.

    A verdict on a whole model is `bench`'s; these times serve limits on latency.

    Args:
        model: The module.
        graph: Its captured graph, which tells the shape of the image.
        seconds: About how long to measure; at least nine rounds are run.
        progress: Told of every round.

    Returns:
        Seconds by module path, medians over the rounds.

    >>> from convsmith.graph.capture import capture
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> found = measure_latency(net, capture(net, torch.zeros(1, 3, 16, 16)), seconds=0.01)
    >>> found.of(["0", "1"]) < found.total
    True
    """
    replica = channels_last(copied(plain(unwrapped(model))).cpu().eval(), len(graph.inputs[0].shape) - 2)
    images = [torch.randn(1, *each.shape[1:]) for each in graph.inputs]
    rounds: list[dict[str, float]] = []
    end = perf_counter() + seconds
    with torch.inference_mode():
        replica(*images)
        watch = _Watch(replica)
        while len(rounds) < FEWEST or (len(rounds) < ROUNDS and perf_counter() < end):
            progress("measuring latency by module", len(rounds), ROUNDS)
            replica(*images)
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


def channels_last(module: nn.Module, axes: int) -> nn.Module:
    """A module whose weights lie with channels last where maps have so many axes; of signals torch knows no such way.

    >>> conv = channels_last(nn.Conv3d(4, 8, 3), 3)
    >>> conv.weight.is_contiguous(memory_format=torch.channels_last_3d)
    True
    """
    if axes not in LAYOUTS:
        return module
    for parameter in module.parameters():
        if parameter.dim() == axes + 2:
            parameter.data = parameter.data.contiguous(memory_format=LAYOUTS[axes])
    return module


def median_seconds(modules: Mapping[str, nn.Module], shape: Sequence[int], seconds: float) -> dict[str, float]:
    """Median seconds of each module on one image (c, h, w), in turns for about `seconds` each, in eager torch."""
    axes = len(shape) - 1
    image = torch.randn(1, *shape).to(memory_format=LAYOUTS.get(axes, torch.preserve_format))
    ready = {name: channels_last(module.eval(), axes) for name, module in modules.items()}
    with torch.inference_mode():
        runs = {name: partial(module, image) for name, module in ready.items()}
        for run in runs.values():
            run()
        times = take_turns(runs, seconds, torch.get_num_threads())
    return {name: float(np.median(found)) for name, found in times.items()}
