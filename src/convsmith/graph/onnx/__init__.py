"""A second way in: the graph of an ONNX file, in the ATen calls that the one table of rules answers."""

from convsmith.graph.onnx import elementwise, pools, products, resampling, shapes  # these fill TRANSLATIONS
from convsmith.graph.onnx.capture import capture_onnx
from convsmith.graph.onnx.op import TRANSLATIONS, Declined, Emit, Op, translates

__all__ = [
    "TRANSLATIONS", "Declined", "Emit", "Op", "capture_onnx", "elementwise", "pools", "products", "resampling",
    "shapes", "translates",
]  # fmt: skip
