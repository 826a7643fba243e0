"""Latency of models side by side."""

from convsmith.bench.measure import FEWEST, ROUNDS, bench, take_turns
from convsmith.bench.records import FASTER, SLOWER, UNSURE, Bench, Latency, Skipped
from convsmith.bench.runtimes import RUNTIMES, Subject
from convsmith.bench.statistics import Times, compare, ratio_bounds, verdict

__all__ = [
    "FASTER", "FEWEST", "ROUNDS", "RUNTIMES", "SLOWER", "UNSURE", "Bench", "Latency", "Skipped", "Subject", "Times",
    "bench", "compare", "ratio_bounds", "take_turns", "verdict",
]  # fmt: skip
