"""Latencies as planners ask for them: of a model's modules, and of blocks in the place of convolutions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import nn

from convsmith.blocks import Block
from convsmith.errors import ConvsmithError
from convsmith.graph import Graph
from convsmith.kernels.spec import ConvSpec
from convsmith.latency.interleaved import take_turns
from convsmith.target import Target

SECONDS_A_BLOCK = 0.05

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
    def target(self) -> Target | None:
        """Where it was measured; None for eager torch, module by module."""
        return None

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

    def layers(self, model: nn.Module, graph: Graph) -> list[float | None]:
        """By layer, in the order of `graph.layers`; None for a call in the midst of a larger module.

        A module that is called several times has its time in equal parts.

        >>> from convsmith.graph.capture import capture
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1))
        >>> Latencies({"": 3.0, "0": 2.0, "1": 1.0}).layers(net, capture(net, torch.zeros(1, 3, 9, 9)))
        [2.0, 1.0]
        """
        calls = Counter(node.module for node in graph.layers)
        alone = {path for path, module in model.named_modules() if not list(module.children())}
        return [
            self.modules[node.module] / calls[node.module]
            if node.module in alone and node.module in self.modules
            else None
            for node in graph.layers
        ]

    def resized(self, layer: str, conv: ConvSpec, other: ConvSpec, size: tuple[int, ...]) -> float:
        """Of a layer once it has other channels: its time as a multiple of its own, both run in turns."""
        key = (conv, size, repr(other))
        if key not in self.ratios:
            modules = {"": conv.standard(), "other": other.standard()}
            inputs = {name: (spec.in_channels, *size) for name, spec in (("", conv), ("other", other))}
            medians = {n: median_seconds({n: m}, inputs[n], SECONDS_A_BLOCK)[n] for n, m in modules.items()}
            self.ratios[key] = medians["other"] / medians[""]
        return self.of([layer]) * self.ratios[key]

    def blocks(self, layer: str, conv: ConvSpec, size: tuple[int, ...], blocks: Sequence[Block]) -> list[float]:
        """Of each block in a layer's place: its time as a multiple of the convolution's, both run in turns.

        Weights are random, and convolutions alike on maps of one size are measured once.
        """
        wanted = [block for block in blocks if (conv, size, str(block)) not in self.ratios]
        if wanted:
            modules = {"": conv.standard()} | {str(b): b.build(conv) for b in wanted}
            medians = median_seconds(modules, (conv.in_channels, *size), SECONDS_A_BLOCK)
            self.ratios.update({(conv, size, name): seconds / medians[""] for name, seconds in medians.items() if name})
        layer_seconds = self.of([layer])
        return [layer_seconds * self.ratios[conv, size, str(block)] for block in blocks]


# Channels last, by the axes of a map.
LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}


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
    return {name: float(np.median(readings)) for name, readings in times.items()}
