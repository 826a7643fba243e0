"""Improve a convolutional network without searching by training."""

from convsmith.bench import bench
from convsmith.data import load_data
from convsmith.errors import (
    BudgetError,
    CaptureError,
    ConvsmithError,
    DataError,
    FileError,
    PlanError,
    ShapeError,
    UnknownNameError,
)
from convsmith.export import export
from convsmith.graph import Graph
from convsmith.graph.capture import capture
from convsmith.latency.measure import measure_latency
from convsmith.load import capture_file, load
from convsmith.plan import Plan
from convsmith.planning.decompose import decompose
from convsmith.planning.expand import expand
from convsmith.planning.organize import organize, pareto
from convsmith.planning.search.search import search_blocks
from convsmith.report import report
from convsmith.rewriting.apply import apply
from convsmith.score.metric import Scores, score
from convsmith.train import evaluate, train
from convsmith.zoo import build

__all__ = [
    "BudgetError", "CaptureError", "ConvsmithError", "DataError", "FileError", "Graph", "Plan", "PlanError", "Scores",
    "ShapeError", "UnknownNameError", "apply", "bench", "build", "capture", "capture_file", "decompose",
    "evaluate", "expand", "export", "load", "load_data", "measure_latency", "organize", "pareto", "report", "score",
    "search_blocks", "train",
]  # fmt: skip
