"""Whole runs, each step resumable: a model made better, and a separable one trained wide and brought back."""

from convsmith.optimize.expansion import DECOMPOSED, EXPAND, EXPANDED, Expansion, expansion
from convsmith.optimize.steps import EVALUATIONS, RUN, SCORES, Watch
from convsmith.optimize.whole import BASELINE, BENCH, DECOMPOSE, EXPORTS, OPTIMIZED, ORGANIZE, Settings, optimize

__all__ = [
    "BASELINE", "BENCH", "DECOMPOSE", "DECOMPOSED", "EVALUATIONS", "EXPAND", "EXPANDED", "EXPORTS", "OPTIMIZED",
    "ORGANIZE", "RUN", "SCORES", "Expansion", "Settings", "Watch", "expansion", "optimize",
]  # fmt: skip
