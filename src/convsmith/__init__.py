"""Improve a convolutional network without searching by training."""

from convsmith.decompose import decompose
from convsmith.errors import ConvsmithError
from convsmith.graph import Graph, capture
from convsmith.metric import Scores, score
from convsmith.organize import organize, pareto
from convsmith.plan import Plan
from convsmith.rewrite import apply
from convsmith.zoo import build

__all__ = [
    "ConvsmithError", "Graph", "Plan", "Scores", "apply", "build", "capture", "decompose", "organize", "pareto",
    "score",
]  # fmt: skip
