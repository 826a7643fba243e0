"""Ways to compute several depthwise filters a channel, beside the convolution they replace: `python bench/forms.py`.

Each stands between a pointwise kernel and a ReLU, batch 1, one thread: eager, and in ONNX Runtime in float32 and in
int8 (QDQ, per channel, calibrated on eight inputs of noise). All take turns; medians of processor time in units of the
dense convolution's, with quartiles. Writes bench/results/forms.json.
"""

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from convsmith.blocks import parse_block
from convsmith.environment import environment
from convsmith.files import write_text
from convsmith.kernels.spec import ConvSpec

RESULT = Path(__file__).parent / "results" / "forms.json"
SHAPES = ((16, 32), (32, 16), (64, 8), (64, 56))  # channels, side
BLOCKS = ("dw-pw", *(f"dw-pw:r={r},by={by}" for r in (2, 4) for by in ("tile", "split", "group")))
ROUNDS = 25
Run = Callable[[], object]


class Noise(CalibrationDataReader):
    """A few inputs to calibrate on."""

    def __init__(self, name: str, x: Tensor) -> None:
        self._left = [{name: torch.randn(x.shape).numpy()} for _ in range(8)]

    def get_next(self) -> dict[str, Any] | None:
        """The next one."""
        return self._left.pop() if self._left else None


def nets(channels: int) -> Iterator[tuple[str, nn.Module]]:
    """The dense convolution and every block in their place, by name."""
    spec = ConvSpec(channels, channels)
    for name in ("dense", *BLOCKS):
        middle = spec.standard() if name == "dense" else parse_block(name).build(spec)
        yield name, nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU(), middle, nn.ReLU()).eval()


def runs(net: nn.Module, x: Tensor, folder: Path) -> dict[str, Run]:
    """One run of a net in each runtime."""

    def eager() -> None:
        with torch.inference_mode():
            net(x)

    plain, ready, quantized = (folder / f"{name}.onnx" for name in ("plain", "ready", "quantized"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), plain, dynamo=True, verbose=False)
    quant_pre_process(plain, ready)
    name = onnxruntime.InferenceSession(ready).get_inputs()[0].name
    quantize_static(
        ready, quantized, Noise(name, x), quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8, per_channel=True,
    )  # fmt: skip
    return {"eager": eager, "onnxruntime": session(plain, x), "onnxruntime int8": session(quantized, x)}


def session(path: Path, x: Tensor) -> Run:
    """One run of a file on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    opened = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = {opened.get_inputs()[0].name: x.numpy()}
    return lambda: opened.run(None, given)


def in_turns(each: dict[str, Run]) -> dict[str, list[float]]:
    """Processor seconds of runs that take turns."""
    found: dict[str, list[float]] = {name: [] for name in each}
    for _ in range(ROUNDS + 3):
        for name, run in each.items():
            before = process_time()
            run()
            found[name].append(process_time() - before)
    return {name: seconds[3:] for name, seconds in found.items()}


def main() -> None:
    """Measure, print, and keep."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows = []
    for channels, side in SHAPES:
        x = torch.randn(1, channels, side, side)
        with TemporaryDirectory() as folder:
            ready = {name: runs(net, x, Path(folder)) for name, net in nets(channels)}
        for runtime in ("eager", "onnxruntime", "onnxruntime int8"):
            seconds = in_turns({name: each[runtime] for name, each in ready.items()})
            dense = median(seconds["dense"])
            for name, taken in seconds.items():
                low, _, high = quantiles(taken, n=4)
                rows.append({
                    "channels": channels, "side": side, "runtime": runtime, "block": name,
                    "milliseconds": round(1e3 * median(taken), 4), "ratio": round(median(taken) / dense, 3),
                    "quartiles": [round(low / dense, 3), round(high / dense, 3)],
                })  # fmt: skip
            print(channels, side, runtime, {r["block"]: r["ratio"] for r in rows[-len(seconds) :]}, flush=True)
    record = {"what": __doc__, "rounds": ROUNDS, "rows": rows, **environment()}
    write_text(RESULT, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
