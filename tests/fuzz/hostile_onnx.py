"""Hostile ONNX files: numbers, sizes, names, ops, types and nodes of sound ones changed, or their bytes."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
from changes import NUMBERS, in_bytes
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

N = helper.make_node
F = TensorProto.FLOAT


def weight(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def base(nodes: list[onnx.NodeProto], image: tuple[Any, ...] = (1, 4, 8, 8), **own: Any) -> ModelProto:
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in own.items()]
    value = helper.make_tensor_value_info("x", F, image)
    graph = helper.make_graph(nodes, "net", [value], [helper.make_empty_tensor_value_info("y")], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


SEEDS: tuple[Callable[[], ModelProto], ...] = (
    lambda: base([N("Conv", ["x", "w", "b"], ["a"], pads=[1] * 4, strides=[2, 2], dilations=[1, 1], group=2),
                  N("BatchNormalization", ["a", "b", "b", "b", "b"], ["c"]), N("Relu", ["c"], ["d"]),
                  N("MaxPool", ["d"], ["e"], kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]),
                  N("GlobalAveragePool", ["e"], ["f"]), N("Flatten", ["f"], ["g"]), N("Gemm", ["g", "m"], ["y"])],
                 w=weight(6, 2, 3, 3), b=weight(6), m=weight(6, 5)),
    lambda: base([N("ConvTranspose", ["x", "w"], ["a"], strides=[2, 2], pads=[1] * 4, output_padding=[1, 1]),
                  N("Resize", ["a", "", "s"], ["b"], mode="linear"),
                  N("AveragePool", ["b"], ["c"], kernel_shape=[2, 2]),
                  N("Pad", ["c", "p"], ["d"], mode="reflect"), N("LRN", ["d"], ["e"], size=3),
                  N("DepthToSpace", ["e"], ["y"], blocksize=1)],
                 w=weight(4, 3, 3, 3), s=np.array([1, 1, 2, 2], np.float32), p=np.array([0, 0, 1, 1, 0, 0, 1, 1])),
    lambda: base([N("Shape", ["x"], ["s"]), N("Gather", ["s", "i"], ["n"]), N("Concat", ["n", "r"], ["t"], axis=0),
                  N("Reshape", ["x", "t"], ["a"]), N("Transpose", ["a"], ["b"], perm=[0, 2, 1]),
                  N("Slice", ["b", "i", "e", "i"], ["c"]), N("Split", ["c"], ["d", "q"], axis=2),
                  N("MatMul", ["d", "m"], ["f"]), N("Softmax", ["f"], ["g"], axis=-1),
                  N("ReduceMean", ["g"], ["y"], axes=[1])],
                 i=np.array([0]), r=np.array([4, 64]), e=np.array([1]), m=weight(2, 3)),
    lambda: base([N("ConstantOfShape", ["s"], ["c"]), N("Tile", ["c", "r"], ["d"]),
                  N("Range", ["u", "v", "o"], ["q"]),
                  N("Cast", ["q"], ["f"], to=F), N("ReduceSum", ["f"], ["h"], keepdims=0),
                  N("Expand", ["h", "s"], ["k"]),
                  N("Add", ["x", "k"], ["a"]), N("Gather", ["a", "g"], ["b"], axis=1), N("Mul", ["b", "k"], ["y"])],
                 s=np.array([1, 1, 8, 8]), r=np.array([1, 1, 1, 1]), u=np.array(0), v=np.array(9), o=np.array(1),
                 g=np.array([0, 2, 1, 3])),
    lambda: base([N("LSTM", ["x", "w", "r", "b"], ["a", "h", "k"], hidden_size=5, direction="bidirectional"),
                  N("Squeeze", ["h", "z"], ["y"])], image=(7, 1, 6), w=weight(2, 20, 6), r=weight(2, 20, 5),
                 b=weight(2, 40), z=np.array([1])),
    lambda: base([N("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]), N("ConvInteger", ["q", "w", "z"], ["i"]),
                  N("Cast", ["i"], ["f"], to=F), N("Mul", ["f", "s"], ["g"]),
                  N("QuantizeLinear", ["g", "e", "n"], ["h"]),
                  N("QLinearConv", ["h", "e", "n", "v", "e", "n", "e", "n"], ["k"]),
                  N("DequantizeLinear", ["k", "e", "n"], ["y"])],
                 w=np.ones((3, 4, 3, 3), np.uint8), v=np.ones((2, 3, 1, 1), np.uint8), e=np.float32(1), n=np.uint8(0)),
    lambda: base([N("Einsum", ["x", "m"], ["a"], equation="bchw,cd->bdhw"), N("NonZero", ["a"], ["n"]),
                  N("If", ["t"], ["b"], **{f"{arm}_branch": helper.make_graph(
                      [N("Relu", ["a"], [arm])], arm, [], [helper.make_empty_tensor_value_info(arm)])
                      for arm in ("then", "else")}),
                  N("LayerNormalization", ["b", "l"], ["y"])], m=weight(4, 3), t=np.array(True), l=weight(8)),
)  # fmt: skip


def changed(model: ModelProto, random: Random) -> None:
    """One change at random: a number, a size, a name, an op, a type, a node."""
    node = random.choice(model.graph.node)
    tensors = list(model.graph.initializer)
    kind = random.randrange(10)
    if kind < 3 and node.attribute:
        attribute = random.choice(node.attribute)
        if attribute.ints and random.random() < 0.8:
            attribute.ints[random.randrange(len(attribute.ints))] = random.choice(NUMBERS)
        elif attribute.type == AttributeProto.INT:
            attribute.i = random.choice(NUMBERS)
        else:
            node.attribute.remove(attribute)
    elif kind < 5 and tensors:
        tensor = random.choice(tensors)
        if tensor.data_type == TensorProto.INT64 and random.random() < 0.7:
            values = np.frombuffer(tensor.raw_data, np.int64).copy()
            values[random.randrange(values.size)] = random.choice(NUMBERS)
            tensor.raw_data = values.tobytes()
        elif tensor.dims:
            tensor.dims[random.randrange(len(tensor.dims))] = random.choice(NUMBERS)
    elif kind == 5:
        dims = model.graph.input[0].type.tensor_type.shape.dim
        dims[random.randrange(len(dims))].dim_value = random.choice(NUMBERS)
    elif kind == 6:
        names = [
            "",
            "x",
            "nothing",
            *(name for other in model.graph.node for name in other.output),
            *(t.name for t in tensors),
        ]
        if node.input:
            node.input[random.randrange(len(node.input))] = random.choice(names)
    elif kind == 7:
        other = random.choice(SEEDS)().graph.node
        node.op_type = random.choice(
            [*(n.op_type for n in other), "Gelu", "TopK", "Loop", "GridSample", "", "Nonsense"]
        )
    elif kind == 8:
        (model.graph.node.remove if random.random() < 0.5 else model.graph.node.append)(node)
    else:
        what = random.choice(["opset", "type", "domain", "output"])
        if what == "opset":
            model.opset_import[0].version = random.choice((0, 1, 7, 13, 21, 10**6))
        elif what == "type" and tensors:
            random.choice(tensors).data_type = random.choice((0, 1, 3, 7, 8, 9, 10, 11, 16, 22, 99))
        elif what == "domain":
            node.domain = random.choice(("com.microsoft", "acme", "ai.onnx.ml"))
        elif node.output:
            node.output[random.randrange(len(node.output))] = random.choice(["", "x", "y", "a"])


def onnx_file(random: Random, folder: Path) -> list[object]:
    """A file with a few changes, or with bytes that are wrong, analyzed."""
    model = random.choice(SEEDS)()
    for _ in range(random.randint(1, 4)):
        if model.graph.node:
            changed(model, random)
    data = model.SerializeToString()
    path = folder / "net.onnx"
    path.write_bytes(in_bytes(data, random) if random.random() < 0.125 else data)
    return ["analyze", path, "--convention", random.choice(("published", "exact")), "--json", "-"]
