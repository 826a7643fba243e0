"""Files that other runtimes read, each kept only when it computes what the model computes."""

from convsmith.export.export import TOLERANCE, export
from convsmith.export.records import EXPORTS, INT8, ONNX, Accuracy, ExportCheck, files_of, keep_record
from convsmith.formats import FORMATS, ORT_ERRORS, Format, evaluation_copy, load_pt2, quiet, reason, session, trace

__all__ = [
    "EXPORTS", "FORMATS", "INT8", "ONNX", "ORT_ERRORS", "TOLERANCE", "Accuracy", "ExportCheck", "Format",
    "evaluation_copy", "export", "files_of", "keep_record", "load_pt2", "quiet", "reason", "session", "trace",
]  # fmt: skip
