"""Improve a convolutional network without searching by training."""

import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

from convsmith.lazy import Lazy

if TYPE_CHECKING:  # what is said here to checkers of types is found by HOMES when it is first asked for
    from convsmith.bench import bench
    from convsmith.blocks import parse_block
    from convsmith.calibration.calibrate import calibrate
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
    from convsmith.optimize import Front, Optimized, front, optimize
    from convsmith.plan import Plan
    from convsmith.planning.decompose import decompose
    from convsmith.planning.expand import expand
    from convsmith.planning.organize import organize, pareto
    from convsmith.planning.search.search import search_blocks
    from convsmith.planning.width import narrow
    from convsmith.report import report
    from convsmith.rewriting.apply import Applied, apply, rewrite
    from convsmith.score.advice import advise
    from convsmith.score.metric import score
    from convsmith.score.records import Scores
    from convsmith.target import Target
    from convsmith.train import Recipe, evaluate, recover, reestimate_norms, train
    from convsmith.zoo import build

__version__ = version("convsmith")

HOMES = {
    "convsmith.bench": ("bench",),
    "convsmith.blocks": ("parse_block",),
    "convsmith.calibration.calibrate": ("calibrate",),
    "convsmith.data": ("load_data",),
    "convsmith.errors": (
        "BudgetError",
        "CaptureError",
        "ConvsmithError",
        "DataError",
        "FileError",
        "PlanError",
        "ShapeError",
        "UnknownNameError",
    ),
    "convsmith.export": ("export",),
    "convsmith.graph": ("Graph",),
    "convsmith.graph.capture": ("capture",),
    "convsmith.latency.measure": ("measure_latency",),
    "convsmith.load": ("capture_file", "load"),
    "convsmith.optimize": ("Front", "Optimized", "front", "optimize"),
    "convsmith.plan": ("Plan",),
    "convsmith.planning.decompose": ("decompose",),
    "convsmith.planning.expand": ("expand",),
    "convsmith.planning.organize": ("organize", "pareto"),
    "convsmith.planning.search.search": ("search_blocks",),
    "convsmith.planning.width": ("narrow",),
    "convsmith.report": ("report",),
    "convsmith.rewriting.apply": ("Applied", "apply", "rewrite"),
    "convsmith.score.advice": ("advise",),
    "convsmith.score.metric": ("score",),
    "convsmith.score.records": ("Scores",),
    "convsmith.target": ("Target",),
    "convsmith.train": ("Recipe", "evaluate", "recover", "reestimate_norms", "train"),
    "convsmith.zoo": ("build",),
}
sys.modules[__name__].__class__ = Lazy
sys.modules[__name__].homes = {name: home for home, names in HOMES.items() for name in names}  # type: ignore[attr-defined]

__all__ = [
    "Applied", "BudgetError", "CaptureError", "ConvsmithError", "DataError", "FileError", "Front", "Graph", "Optimized",
    "Plan", "PlanError", "Recipe", "Scores", "ShapeError", "Target", "UnknownNameError", "advise", "apply", "bench",
    "build", "calibrate", "capture", "capture_file", "decompose", "evaluate", "expand", "export", "front", "load",
    "load_data", "measure_latency", "narrow", "optimize", "organize", "pareto", "parse_block", "recover",
    "reestimate_norms", "report", "rewrite", "score", "search_blocks", "train",
]  # fmt: skip
