"""A second way in: the graph of an ONNX file, in the ATen calls that the one table of rules answers."""

from convsmith.onnx_graph import elementwise, pools, products, resampling, shapes  # these fill TRANSLATIONS
from convsmith.onnx_graph.capture import capture_onnx
from convsmith.onnx_graph.op import TRANSLATIONS, Declined, Emit, Op, translates

__all__ = [
    "TRANSLATIONS", "Declined", "Emit", "Op", "capture_onnx", "elementwise", "pools", "products", "resampling",
    "shapes", "translates",
]  # fmt: skip
