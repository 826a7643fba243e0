"""Improve a convolutional network without searching by training."""

from convsmith.bench import bench
from convsmith.capture import capture
from convsmith.data import load_data
from convsmith.decompose import decompose
from convsmith.errors import ConvsmithError
from convsmith.expand import expand
from convsmith.export import export
from convsmith.graph import Graph
from convsmith.latency import measure_latency
from convsmith.load import capture_file, load
from convsmith.metric import Scores, score
from convsmith.organize import organize, pareto
from convsmith.plan import Plan
from convsmith.report import report
from convsmith.rewrite import apply
from convsmith.search import search_blocks
from convsmith.train import evaluate, train
from convsmith.zoo import build

__all__ = [
    "ConvsmithError", "Graph", "Plan", "Scores", "apply", "bench", "build", "capture", "capture_file", "decompose",
    "evaluate", "expand", "export", "load", "load_data", "measure_latency", "organize", "pareto", "report", "score",
    "search_blocks", "train",
]  # fmt: skip
