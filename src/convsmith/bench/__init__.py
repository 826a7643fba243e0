"""Latency of models side by side."""

from convsmith.bench.measure import bench
from convsmith.bench.precision import precision_of
from convsmith.bench.records import FASTER, SLOWER, UNSURE, Bench, Latency, Skipped
from convsmith.bench.statistics import compare, ratio_bounds, verdict

__all__ = [
    "FASTER", "SLOWER", "UNSURE", "Bench", "Latency", "Skipped", "bench", "compare", "precision_of",
    "ratio_bounds", "verdict",
]  # fmt: skip
