"""The number type a model computes in: of modules by their weights, of files by their nodes and what they store."""

from pathlib import Path

import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import TensorProto
from torch import nn

NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64"}
STORED = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.DOUBLE: "fp64",
}
INT8 = {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"}
UNTOLD = "as stored"


def precision_of(model: nn.Module | Path) -> str:
    """fp32, fp16, bf16, fp64 or int8; `as stored` where a file does not tell, and where there are no weights."""
    if isinstance(model, nn.Module):
        sizes = dict.fromkeys(NAMES, 0)
        for each in model.parameters():
            sizes[each.dtype] = sizes.get(each.dtype, 0) + each.numel()
        most = max(sizes, key=sizes.__getitem__)
        return NAMES.get(most, UNTOLD) if sizes[most] else UNTOLD
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
