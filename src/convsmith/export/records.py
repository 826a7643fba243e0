"""What is known of a written file."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ExportCheck:
    """A written file, and its largest error against the model over random inputs of batch 1 and 3.

    Attributes:
        path: The file.
        format: The name of its format, `onnx` or `pt2`.
        opset: The opset of ONNX; None for other formats.
        bytes: The file's size.
        max_abs_error: The largest difference to the output of the model in evaluation mode.
        max_rel_error: The same, relative to the largest value of that output.
    """

    path: Path
    format: str
    opset: int | None
    bytes: int
    max_abs_error: float
    max_rel_error: float
