"""The number type a model is measured in: of files by their nodes and what they store."""

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto
from torch import nn

STORED = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.DOUBLE: "fp64",
}
INT8 = {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"}
UNTOLD = "as stored"


def precision_of(model: nn.Module | Path) -> str:
    """What a model is measured in: modules in fp32; files in fp32, fp16, bf16, fp64, int8, or `as stored` if untold."""
    if isinstance(model, nn.Module):
        return "fp32"
    return _of_file(model) if model.suffix == ".onnx" else UNTOLD


def _of_file(path: Path) -> str:
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (DecodeError, OSError, ValueError):
        return UNTOLD
    if any(node.op_type in INT8 for node in graph.node):
        return "int8"
    kinds = [STORED[each.data_type] for each in graph.initializer if each.data_type in STORED]
    return max(sorted(set(kinds)), key=kinds.count, default=UNTOLD)
