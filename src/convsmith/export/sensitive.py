"""Which layers suffer most from 8-bit integers, judged by the output: they stay in float."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from convsmith.export.records import LARGEST
from convsmith.formats import session
from convsmith.progress import Progress
from convsmith.quantize import Feed, layers_of, quantize

Chain = tuple[str, ...]  # layers


def output_error(source: Path, made: Path, batches: Sequence[Feed]) -> float:
    """The relative error of a file's output: the root of its squared error over what outputs differ by among images.

    Of several outputs, the mean over them. Batches are of two images or more in all.
    """
    want, got = _answers(source, batches), _answers(made, batches)
    errors = [_relative(a, b) for a, b in zip(got, want, strict=True)]
    return float(np.sqrt(sum(errors) / len(errors)))


def _answers(path: Path, batches: Sequence[Feed]) -> list[NDArray[Any]]:
    runtime = session(path, torch.get_num_threads())
    return [np.concatenate(parts) for parts in zip(*(runtime.run(None, batch) for batch in batches), strict=True)]


def _relative(got: NDArray[Any], want: NDArray[Any]) -> float:
    missed = float(np.square(got - want, dtype=np.float64).sum())
    varying = float(np.square(want - want.mean(0), dtype=np.float64).sum())
    energy = varying or float(np.square(want, dtype=np.float64).sum())
    return missed / energy if energy else missed


def chains_of(source: Path) -> list[Chain]:
    """Layers in order, those together that feed one another with no activation between, as factors of one do.

    What is between factors is wide where terms cancel each other, so that one of them alone in float gains nothing.
    """
    graph = onnx.load(source, load_external_data=False).graph
    layers = {node: layer for layer, node in layers_of(source).items()}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    chains: dict[str, list[str]] = {}  # by the output of its last node
    for node in graph.node:
        if node.name in layers:
            only = len(readers[node.input[0]]) == 1
            chain = chains.pop(node.input[0], []) if only else []
            chains[node.output[0]] = [*chain, layers[node.name]]
    return [tuple(chain) for chain in chains.values()]


def stay_in_float(source: Path, calibrate: Sequence[Feed], judge: Sequence[Feed], progress: Progress) -> Chain:
    """The fewest layers to leave in float so that the output's error is within LARGEST.

    Each chain's error is measured with it alone in int8: squared errors of chains add up. Those that cause most go
    first, as few as measured to be enough. None where all of them would have to, or would not be enough.
    """
    chains = chains_of(source)
    with TemporaryDirectory() as folder:
        tried = _Tried(source, Path(folder) / "tried.onnx", calibrate, judge)
        alone: dict[Chain, float] = {}
        for number, chain in enumerate(chains):
            progress(f"trying {chain[0]} in int8", number, len(chains))
            alone[chain] = tried.error([other for other in chains if other is not chain])
        worst = sorted(chains, key=lambda chain: -alone[chain])
        low, high = 0, len(worst)  # so many are too few, and enough
        while high - low > 1:
            middle = (low + high) // 2
            enough = tried.error(worst[:middle]) <= LARGEST
            low, high = (low, middle) if enough else (middle, high)
    if high == len(chains):
        return ()
    kept = {layer for chain in worst[:high] for layer in chain}
    return tuple(layer for chain in chains for layer in chain if layer in kept)


class _Tried:
    """A file quantized again and again, with other layers in float each time."""

    def __init__(self, source: Path, made: Path, calibrate: Sequence[Feed], judge: Sequence[Feed]) -> None:
        self._source, self._made, self._calibrate, self._judge = source, made, calibrate, judge

    def error(self, kept: Sequence[Chain]) -> float:
        """Of the output with these in float."""
        quantize(self._source, self._made, self._calibrate, [layer for chain in kept for layer in chain])
        return output_error(self._source, self._made, self._judge)
