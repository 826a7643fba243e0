"""Whole runs, each step resumable: a model made better, and a separable one trained wide and brought back."""

from convsmith.optimize.evaluations import (
    EVALUATIONS,
    NORMS,
    ORIGINAL,
    RECOVERED,
    STARTS,
    TEACHER,
    TRAINED,
    Evaluated,
    Evaluations,
    made_by,
    read_evaluations,
)
from convsmith.optimize.expansion import DECOMPOSED, EXPAND, EXPANDED, Expansion, expansion
from convsmith.optimize.fronts import Front, Point, front
from convsmith.optimize.in_memory import Optimized, optimize
from convsmith.optimize.steps import RUN, SCORES, Watch
from convsmith.optimize.whole import BASELINE, BENCH, DECOMPOSE, OPTIMIZED, ORGANIZE, Settings, run

__all__ = [
    "BASELINE", "BENCH", "DECOMPOSE", "DECOMPOSED", "EVALUATIONS", "EXPAND", "EXPANDED", "NORMS",
    "OPTIMIZED", "ORGANIZE", "ORIGINAL", "RECOVERED", "RUN", "SCORES", "STARTS", "TEACHER", "TRAINED", "Evaluated",
    "Evaluations", "Expansion", "Front", "Optimized", "Point", "Settings", "Watch", "expansion", "front", "made_by",
    "optimize", "read_evaluations", "run",
]  # fmt: skip
