"""The judge of ONNX translations: ONNX Runtime, asked which inputs move which outputs."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from convsmith.graph import Graph
from convsmith.graph.onnx import capture_onnx
from convsmith.testing.oracles import hold, sample, seen_by_gradient, seen_by_reach

DRAWS = 16  # a maximum hides what is smaller


def check_onnx(model: onnx.ModelProto | str, *, draws: int = DRAWS) -> Graph:
    """Judge the translations of all ops of a small ONNX model of one input, batch 1; its graph comes back.

    model: a ModelProto, or its text as `onnx.parser` reads it. Every op is known, and the output's shape is that of a
    run. Of up to 60 output elements the channels and the window seen are those input elements that move them in ONNX
    Runtime. Every input element is moved, so that a map of a few pixels is enough. Raises AssertionError.

    >>> text = '<ir_version: 8, opset_import: ["": 17]> n (float[1,3,5,5] x) => (float[1,3,5,5] y) { y = Relu(x) }'
    >>> [node.call.op for node in check_onnx(text).nodes]
    ['aten.relu.default']
    """
    made = onnx.parser.parse_model(model) if isinstance(model, str) else model
    with TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        onnx.save(made, path)
        graph = capture_onnx(path)
        session = onnxruntime.InferenceSession(path, _quiet(), providers=["CPUExecutionProvider"])
        hold(not graph.unknown_ops, f"No translation for {', '.join(graph.unknown_ops)}, or it declined this form.")
        moved = _moved(session, graph.inputs[0].name, graph.inputs[0].shape, draws)
    output, reach = graph.outputs[0], graph.reaches()[graph.outputs[0]]
    shape = moved.shape[: 1 - len(graph.inputs[0].shape)]
    hold(graph.shapes[output] == shape, f"The translation says {graph.shapes[output]}, ONNX Runtime gives {shape}.")
    for index in sample(shape, 60):
        computed, moved_by = seen_by_reach(reach, index), seen_by_gradient(moved[index])
        hold(computed == moved_by, f"Output {index} sees {moved_by} in ONNX Runtime, {computed} by the translation.")
    return graph


def _quiet() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # a shape that is not as declared is told below
    return options


def _moved(session: Any, name: str, image: tuple[int, ...], draws: int) -> NDArray[np.bool_]:
    """For each output element (1, ..) the input elements (c, *map) that move it, in any of some draws of inputs."""
    generator = np.random.default_rng(1)
    moved: Any = False
    for _ in range(draws):
        x = generator.uniform(-1, 1, image).astype(np.float32)
        base = session.run(None, {name: x})[0]
        steps = 0.75 * np.eye(x.size, dtype=np.float32).reshape(-1, *image)
        moved = moved | np.stack([session.run(None, {name: x + step})[0] != base for step in steps])
    return np.asarray(moved, np.bool_).reshape(len(steps), -1).T.reshape(*base.shape, *image[1:])
