"""How much a layer's 3D receptive field grows, and what that is worth (Wang et al., CIKM 2021).

3DRF_k = side_k^2 * channels_k
gain_k = (3DRF_k - 3DRF_{k-1}) / 3DRF_{k-1} * exp(-alpha * 3DRF_{k-1} / V_0)
value  = sum of gain_k^POWER, which ranks whole nets better than the sum of gain_k does (ours; docs/metric.md)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, prod

POWER = 0.25  # bench/metric.py: the accuracies of 6,561 trained nets are ranked alike from .2 to .3


@dataclass(frozen=True)
class Growth:
    """3DRF behind one layer of a stage, and the gain of that layer."""

    side: tuple[int, ...]
    channels: float
    gain: float


def gain(before: float, after: float, volume: float, alpha: float = 3.0) -> float:
    """The gain of growing a 3DRF from `before` to `after` on a map of `volume` V_0.

    >>> round(gain(1, 9, 32 * 32), 4)
    7.9766
    """
    return (after - before) / before * exp(-alpha * before / volume)


def value(gains: Iterable[float]) -> float:
    """The value of layers with these gains, the sum of gain^POWER: the root keeps the order of layers (ours).

    The first 3x3 of a stage gains 8, or a 5x5 24, a second one about 2: a plain sum all but counts stages.

    >>> round(value([7.98, 1.73, 0.89]), 3)
    3.799
    """
    return float(sum(max(gain, 0.0) ** POWER for gain in gains))


def published_growth(
    kernels: Sequence[tuple[int, ...]],
    size: tuple[int, ...],
    channels: float = 1.0,
    alpha: float = 3.0,
    clamp: bool = False,
) -> list[Growth]:
    """The published convention over one stage: sides add up from 1, channels are saturated and cancel.

    `kernels` are those of the stage's counted convolutions in order, `size` the map that enters the first.

    >>> [round(step.gain, 3) for step in published_growth([(3, 3)] * 3, (32, 32))]
    [7.977, 1.732, 0.892]
    """
    side, steps, volume = (1,) * len(size), [], prod(size) * channels
    for kernel in kernels:
        wider = tuple(s + k - 1 for s, k in zip(side, kernel, strict=True))
        wider = tuple(map(min, wider, size)) if clamp else wider
        added = gain(prod(side) * channels, prod(wider) * channels, volume, alpha)
        side = wider
        steps.append(Growth(side, channels, added))
    return steps
