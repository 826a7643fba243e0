"""What convolutions, and blocks in their place, take in a target: each in the context that it has in a net."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from math import log2
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from convsmith.blocks import Block
from convsmith.kernels.spec import ConvSpec
from convsmith.latency.interleaved import Run, clock_for, take_single_turns
from convsmith.latency.kept import Kept, default_file, whereabouts
from convsmith.latency.packing import pack
from convsmith.latency.targets import runtime_of, set_threads
from convsmith.progress import Progress, silent
from convsmith.target import Target
from convsmith.text import times

SECONDS_A_NET = 0.05  # of readings of one small net
TOGETHER = 16  # small nets made ready and read in turns
MOST = 0.97  # of a net's time is its convolutions', at most: something is left for the rest
LEAST = 1e-7  # seconds: what differs by less cannot be told from nothing
DENSE, DENSE_SIZE = ConvSpec(64, 64), (28, 28)  # the reference, read in all turns: a slower machine is seen by it
CONTEXT, REFERENCE = "the context alone", "the reference"
LARGEST_CACHE = 1 << 26
LARGEST_SIDE = 1 << 16
POOLS: Mapping[int, Callable[[int, int], nn.Module]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}

Size = tuple[int, ...]


class Clock:
    """Seconds in a target, of a convolution of any width or of a block in its place; no record: it learns.

    A layer stands between a 1x1 convolution and a ReLU, as its neighbours in a net do, so that conversions of formats
    and fusions count. The time without it is taken off. Layers alike are read once, and kept in a file with what they
    were measured on. All are told at the pace at which the machine is now: that of a reference convolution.
    """

    def __init__(self, target: Target, weights: int = 0, file: Path | None = None, progress: Progress = silent) -> None:
        """weights: bytes of the whole net's, which push a layer's own out of the caches between its runs."""
        self.target, self.runtime = target, runtime_of(target)
        self.evict = _rounded(weights)
        self._kept = Kept(file or default_file(), whereabouts(target) | {"evict": self.evict})
        self._progress = progress
        self._pace = 1.0

    @property
    def reads(self) -> Callable[[], float]:
        """What tells the time."""
        return clock_for(self.target.threads, self.target.device)

    def seconds(self, spec: ConvSpec, size: Size, block: Block | None = None) -> float:
        """Of a convolution that reads maps of `size`, or of a block in its place; a batch as the target says.

        >>> import tempfile
        >>> clock = Clock(Target("eager"), file=Path(tempfile.mkdtemp()) / "latency.jsonl")
        >>> clock.seconds(ConvSpec(8, 8), (8, 8)) < clock.seconds(ConvSpec(64, 64), (32, 32))
        True
        """
        return self.all_seconds(spec, size, [block])[0]

    def all_seconds(self, spec: ConvSpec, size: Size, blocks: Sequence[Block | None]) -> list[float]:
        """Of several; those that are not known are read in turns."""
        tried = self._tried(spec, blocks)
        modules = {_name(block): (spec.standard if block is None else _builder(block, spec)) for block in tried}
        wanted = [name for name in modules if self._kept.find(_what(spec, size, name)) is None]
        for start in range(0, len(wanted), TOGETHER):
            self._progress(f"timing {_told(spec, size)} in {self.target}", start, len(wanted))
            part = {name: modules[name]() for name in wanted[start : start + TOGETHER]}
            for name, found in self.above_context(part, (spec.in_channels, *size)).items():
                self._kept.add(_what(spec, size, name), found)
        known = {name: self._pace * (self._kept.find(_what(spec, size, name)) or LEAST) for name in modules}
        return _between(spec, blocks, known)

    def above_context(self, modules: Mapping[str, nn.Module], shape: Sequence[int]) -> dict[str, float]:
        """Seconds that modules add to what stands around them, on images (c, *map), at the reference's pace."""
        base = _surrounded(nn.Identity(), shape)
        nets = {CONTEXT: base} | {name: _surrounded(module, shape) for name, module in modules.items()}
        medians = self._medians(self._started(nets, shape))
        slower = medians[REFERENCE] / self.reference
        return {name: max(LEAST, (medians[name] - medians[CONTEXT]) / slower) for name in modules}

    def set_pace(self, whole: Run) -> float:
        """Seconds of a whole net's run, now; times of layers are told at the machine's pace of this moment."""
        medians = self._medians({CONTEXT: whole}, {CONTEXT: 0}, seconds=1.0)
        self._pace = medians[REFERENCE] / self.reference
        return medians[CONTEXT]

    def fit_below(self, total: float, layers: Sequence[float]) -> None:
        """Scale times down where those of a net's layers add up to more than the net's own."""
        self._pace *= min(1.0, MOST * total / max(sum(layers), LEAST))

    def images(self, shape: Sequence[int]) -> list[Tensor]:
        """A batch of the target, on its device."""
        return [torch.randn(self.target.batch, *shape).to(self.target.device)]

    @cached_property
    def reference(self) -> float:
        """Seconds of the reference when it was first read here."""
        what = {"reference": _told(DENSE, DENSE_SIZE)}
        known = self._kept.find(what)
        if known is None:
            known = self._medians({}, seconds=1.0)[REFERENCE]
            self._kept.add(what, known)
        return known

    @cached_property
    def _reference(self) -> Run:
        return self._started({REFERENCE: DENSE.standard()}, (DENSE.in_channels, *DENSE_SIZE))[REFERENCE]

    def _started(self, modules: Mapping[str, nn.Module], shape: Sequence[int]) -> dict[str, Run]:
        inputs, threads = self.images(shape), self.target.threads
        with pack(modules, self.runtime, inputs) as packed, torch.inference_mode(), set_threads(threads):
            return {name: self.runtime.start(each, inputs, threads) for name, each in packed.items()}

    def _medians(
        self, runs: Mapping[str, Run], evict: Mapping[str, int] | None = None, seconds: float = SECONDS_A_NET
    ) -> dict[str, float]:
        """Of runs, and of the reference in turn with them."""
        all_runs = {**runs, REFERENCE: self._reference}
        sizes = dict.fromkeys(all_runs, self.evict) | dict(evict or {})
        with torch.inference_mode(), set_threads(self.target.threads):
            times = take_single_turns(all_runs, sizes, seconds, self.reads)
        return {name: float(np.median(found)) for name, found in times.items()}

    def _tried(self, spec: ConvSpec, blocks: Sequence[Block | None]) -> Iterator[Block | None]:
        """Those that are read: of each kind at most so many as the runtime says, evenly from the first to the last."""
        for kind in _kinds(blocks).values():
            most = min(self.runtime.most, len(kind))
            yield from (kind[round(i * (len(kind) - 1) / max(1, most - 1))] for i in range(most))


def _between(spec: ConvSpec, blocks: Sequence[Block | None], known: Mapping[str, float]) -> list[float]:
    """Seconds of all blocks: of those that were not read, by their parameters between their neighbours'."""
    found: dict[str, float] = dict(known)
    for kind in _kinds(blocks).values():
        if missing := [block for block in kind if _name(block) not in found]:
            ends = sorted((_params(block, spec), known[_name(block)]) for block in kind if _name(block) in known)
            params, seconds = zip(*ends, strict=True)
            for block in missing:
                found[_name(block)] = float(np.interp(_params(block, spec), params, seconds))
    return [found[_name(block)] for block in blocks]


def _kinds(blocks: Sequence[Block | None]) -> dict[str, list[Block | None]]:
    kinds: dict[str, list[Block | None]] = {}
    for block in blocks:
        kinds.setdefault("" if block is None else block.name, []).append(block)
    return kinds


def _params(block: Block | None, spec: ConvSpec) -> int:
    with torch.device("meta"):
        module = spec.standard() if block is None else block.build(spec)
    return sum(parameter.numel() for parameter in module.parameters())


def _builder(block: Block, spec: ConvSpec) -> Callable[[], nn.Module]:
    return lambda: block.build(spec)


def _surrounded(module: nn.Module, shape: Sequence[int]) -> nn.Module:
    """A module between its neighbours; one pixel comes out, so that converting the answer's format takes nothing."""
    channels, axes = shape[0], len(shape) - 1
    one = (1,) * axes
    pointwise = ConvSpec(channels, channels, one, one, (0,) * axes, one, bias=True).standard()
    before = nn.Sequential(pointwise, nn.ReLU())
    behind = () if isinstance(module, nn.Identity) else (module, nn.ReLU())
    return nn.Sequential(before, *behind, POOLS[axes](1, LARGEST_SIDE))


def _name(block: Block | None) -> str:
    return "" if block is None else str(block)


def _what(spec: ConvSpec, size: Size, block: str) -> dict[str, object]:
    conv = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(spec).items()}
    return {"conv": conv, "size": list(size), "block": block}


def _told(spec: ConvSpec, size: Size) -> str:
    return f"{spec.in_channels} to {spec.out_channels} channels at {times(size)}"


def _rounded(weights: int) -> int:
    """Bytes as a power of two up to what caches hold, so that nets of about one size share what was read."""
    return min(LARGEST_CACHE, 1 << round(log2(max(weights, 1 << 20))))
