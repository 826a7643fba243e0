"""Files that other runtimes read, each kept only when it computes what the model computes."""

from convsmith.export.export import TOLERANCE, export
from convsmith.export.formats import FORMATS, Format, evaluation_copy, load_pt2, trace
from convsmith.export.records import ExportCheck
from convsmith.export.runtime import ORT_ERRORS, quiet, reason, session

__all__ = [
    "FORMATS", "ORT_ERRORS", "TOLERANCE", "ExportCheck", "Format", "evaluation_copy", "export", "load_pt2", "quiet",
    "reason", "session", "trace",
]  # fmt: skip
