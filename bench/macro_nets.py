"""The 6,561 nets of NAS-Bench-Macro from the zoo's own records, and the table of their accuracies.

Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search" (CVPR 2021): behind a stem eight places in
three stages of 2, 3 and 3, each of which is left out, a MobileNetV2 block with 3x3 and expansion 3, or one with 5x5 and
expansion 6. A net is written as eight digits, 0, 1 and 2. Where a stage's first place is left out, a strided 1x1
convolution stands there. Each was trained three times on CIFAR-10.
"""

import json
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import convsmith as cs
from convsmith.zoo.builder import ConvNet, assemble
from convsmith.zoo.inverted import InvertedUnit
from convsmith.zoo.records import MODULES, HeadRecord, LastRecord, NetRecord, StageRecord, StemRecord, Style, Unit
from convsmith.zoo.units import projected_shortcut

Values = NDArray[np.float64]

INPUT = (3, 32, 32)
STEM, LAST = 32, 1280
PLACES = ((64, 2), (64, 1), (128, 2), (128, 1), (128, 1), (256, 2), (256, 1), (256, 1))  # width and stride


def relu(channels: int) -> nn.ReLU:
    """Theirs have it where MobileNetV2 has ReLU6."""
    return nn.ReLU()


def left_out(channels: int, width: int, stride: int, style: Style) -> nn.Module:
    """Nothing, or the convolution that changes the shape."""
    same = stride == 1 and channels == width
    return nn.Identity() if same else projected_shortcut(channels, width, stride)


UNITS: dict[str, Unit] = {
    "0": left_out,
    "1": partial(InvertedUnit, expansion=3, kernel=3, activation=relu),
    "2": partial(InvertedUnit, expansion=6, kernel=5, activation=relu),
}


def record(digits: str) -> NetRecord:
    """The record of a net: one stage a place, so that `layer1` to `layer8` are its places."""
    stages = tuple(
        StageRecord(UNITS[digit], width, 1, stride) for digit, (width, stride) in zip(digits, PLACES, strict=True)
    )
    return NetRecord(StemRecord(STEM), stages, HeadRecord("classifier"), MODULES, LastRecord(LAST))


def macro_net(digits: str, device: str = "meta") -> ConvNet:
    """Build a net with fresh weights, by default without values.

    >>> sum(p.numel() for p in macro_net("11111111").parameters())
    1588874
    """
    with torch.device(device):
        net = assemble(record(digits), INPUT[0], 10, (1,) * len(PLACES))
    net.input_shape = INPUT
    return net.eval()


def macro_graph(digits: str) -> cs.Graph:
    """A net, captured.

    >>> macro_graph("11111111").macs
    53246464
    """
    return cs.capture(macro_net(digits), torch.zeros(1, *INPUT, device="meta"), name=digits)


@dataclass(frozen=True)
class Trained:
    """The table: names in order, test accuracies in percent (nets, runs), parameters and FLOPs as printed there."""

    names: tuple[str, ...]
    runs: Values
    params: tuple[int, ...]
    flops: tuple[int, ...]
    sha256: str

    @property
    def accuracy(self) -> Values:
        """The mean of the runs."""
        mean: Values = self.runs.mean(axis=1)
        return mean


def read_table(path: Path) -> Trained:
    """Read `nas-bench-macro_cifar10.json` (Apache-2.0)."""
    data = path.read_bytes()
    told = json.loads(data)
    names = tuple(sorted(told))
    return Trained(
        names,
        np.array([told[name]["test_acc"] for name in names]),
        tuple(told[name]["params"] for name in names),
        tuple(told[name]["flops"] for name in names),
        sha256(data).hexdigest(),
    )
