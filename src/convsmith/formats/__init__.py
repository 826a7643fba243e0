"""Formats that models are written in, and what runs the files."""

from convsmith.formats.formats import (
    FORMATS,
    INPUT,
    Format,
    Run,
    describe,
    evaluation_copy,
    load_pt2,
    other_precision,
    placed,
    trace,
)
from convsmith.formats.runtime import ORT_ERRORS, quiet, reason, session

__all__ = [
    "FORMATS", "INPUT", "ORT_ERRORS", "Format", "Run", "describe", "evaluation_copy", "load_pt2", "other_precision",
    "placed", "quiet", "reason", "session", "trace",
]  # fmt: skip
