"""Classifiers on the flat pooled map: with hidden layers, with dropout, and on grouped features."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def perceptron(hidden: Sequence[int], features: int, classes: int) -> nn.Sequential:
    """Hidden layers of these widths with ReLU and dropout, then the linear one (VGG)."""
    widths = (features, *hidden)
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU(), nn.Dropout())]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))


def dropped(part: float, features: int, classes: int, bias: bool = True) -> nn.Sequential:
    """Dropout of a part of the features, then a linear layer."""
    return nn.Sequential(nn.Dropout(part), nn.Linear(features, classes, bias))


def unbiased(features: int, classes: int) -> nn.Linear:
    """A linear layer without bias."""
    return nn.Linear(features, classes, bias=False)


def grouped_features(width: int, groups: int, part: float, features: int, classes: int) -> nn.Sequential:
    """A pointwise layer of `width` outputs in groups, on the pooled map, then dropout and a linear layer (DiCENet)."""
    return nn.Sequential(
        nn.Unflatten(1, (features, 1, 1)),
        nn.Conv2d(features, width, 1, groups=groups, bias=False),
        nn.Flatten(),
        nn.Dropout(part),
        nn.Linear(width, classes),
    )
