"""Learning-rate schedules: the rate as a share of the largest one, at each moment of a training run."""

from collections.abc import Callable
from math import cos, pi

from convsmith.registry import Registry

Schedule = Callable[[float], float]

SCHEDULES = Registry[Schedule]("schedule")


@SCHEDULES.register("one-cycle")
def one_cycle(t: float) -> float:
    """Rise linearly from 1/25 in the first 30 % of the run, then fall on half a cosine to 0.

    `t` is the moment, from 0 at the start to 1 at the end (Smith and Topin, arXiv 1708.07120).

    >>> [round(one_cycle(t), 2) for t in (0.0, 0.15, 0.3, 0.65, 1.0)]
    [0.04, 0.52, 1.0, 0.5, 0.0]
    """
    warm, start = 0.3, 1 / 25
    return start + (1 - start) * t / warm if t < warm else cosine((t - warm) / (1 - warm))


@SCHEDULES.register("cosine")
def cosine(t: float) -> float:
    """Fall on half a cosine from 1 to 0 (Loshchilov and Hutter, ICLR 2017): for nets that are trained already.

    >>> [round(cosine(t), 2) for t in (0.0, 0.5, 1.0)]
    [1.0, 0.5, 0.0]
    """
    return (1 + cos(pi * t)) / 2
