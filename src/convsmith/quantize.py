"""Write an ONNX file anew in 8-bit integers, by ONNX Runtime's own static quantization."""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # what takes most of the time, and may stay in float

Feed = Mapping[str, NDArray[Any]]  # a batch for each input of a file, by name


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands out batches one by one, as ONNX Runtime asks for them."""

    def __init__(self, batches: Iterable[Feed]) -> None:
        self._rest = iter(batches)

    def get_next(self) -> Feed | None:
        """The next batch; None where there are no more."""
        return next(self._rest, None)


def quantize(source: Path, destination: Path, batches: Iterable[Feed], keep_float: Collection[str] = ()) -> None:
    """Write `source` to `destination` with 8-bit weights and activations.

    Weights are int8 by output channel, activations uint8. The ranges of activations are the least and largest values
    on `batches` (Jacob et al., CVPR 2018, "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference"). Nodes that quantize and dequantize stand around what is quantized (QDQ).

    Args:
        source: A float32 ONNX file.
        destination: The file to write.
        batches: Images to calibrate on, a batch for each input by name.
        keep_float: Layers, as `layers_of` names them, or nodes, that are not quantized.

    >>> import numpy as np, tempfile, convsmith as cs, torch
    >>> folder = Path(tempfile.mkdtemp())
    >>> check = cs.export(torch.nn.Conv2d(3, 8, 3), folder / "net.onnx", input=(3, 8, 8))
    >>> quantize(check.path, folder / "net.int8.onnx", [{"input": np.ones((4, 3, 8, 8), np.float32)}])
    >>> sorted({node.op_type for node in onnx.load(folder / "net.int8.onnx").graph.node})
    ['Conv', 'DequantizeLinear', 'QuantizeLinear']
    """
    nodes = layers_of(source)
    with TemporaryDirectory() as folder, _without_logging():
        prepared = Path(folder) / "prepared.onnx"
        # The symbolic shape inference is for transformers: ONNX's own knows all shapes of a convolutional net.
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared, destination, _Reader(batches), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            nodes_to_exclude=[nodes.get(name, name) for name in keep_float],
        )  # fmt: skip


def layers_of(source: Path) -> dict[str, str]:
    """The nodes that hold most of the weights and work, by layer: what the weight is called, else the node itself."""
    graph = onnx.load(source, load_external_data=False).graph
    return {_layer(node): node.name for node in graph.node if node.op_type in WEIGHTED}


def _layer(node: onnx.NodeProto) -> str:
    return node.input[1].removesuffix(".weight") if node.input[1].endswith(".weight") else node.name


@contextmanager
def _without_logging() -> Iterator[None]:
    """Keep the quantizer from logging advice through the root logger, which would also set that up for everybody."""
    root, silent = logging.getLogger(), logging.NullHandler()
    level = root.level
    root.addHandler(silent)
    root.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(silent)
