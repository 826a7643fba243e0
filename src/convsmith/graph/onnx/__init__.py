"""A second way in: the graph of an ONNX file, in the ATen calls that the one table of rules answers."""

from convsmith.graph.onnx import (  # these fill TRANSLATIONS
    elementwise,
    pools,
    products,
    quantized,
    recurrent,
    resampling,
    shapes,
)  # fmt: skip
from convsmith.graph.onnx.capture import capture_onnx
from convsmith.graph.onnx.op import SIZES, TRANSLATIONS, Declined, Emit, Misfit, Op, translates

__all__ = [
    "SIZES", "TRANSLATIONS", "Declined", "Emit", "Misfit", "Op", "capture_onnx", "elementwise", "pools", "products",
    "quantized", "recurrent", "resampling", "shapes", "translates",
]  # fmt: skip
