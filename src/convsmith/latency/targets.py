"""What a model can run in: eager torch, torch.compile, ONNX Runtime in float and in 8-bit integers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor, nn

from convsmith.errors import ConvsmithError
from convsmith.formats import ORT_ERRORS, session
from convsmith.graph.capture import FORWARD_ERRORS
from convsmith.graph.signature import Signature
from convsmith.latency.files import Slot, feeds_of, slots_of
from convsmith.latency.interleaved import Run
from convsmith.latency.latencies import LAYOUTS, channels_last
from convsmith.quantize import quantize
from convsmith.registry import Registry
from convsmith.target import DEVICES, Target

# OSError is torch.compile's where its cache folder cannot be written.
RUN_ERRORS: tuple[type[Exception], ...] = (*FORWARD_ERRORS, *ORT_ERRORS, ConvsmithError, OSError)


class Called(nn.Module):
    """A model of several inputs, called with them in order."""

    def __init__(self, model: nn.Module, call: Signature) -> None:
        super().__init__()
        self.model, self._call = model, call

    def forward(self, *inputs: Tensor) -> Any:
        """Put them where forward takes them."""
        args, named = self._call.call(inputs)
        return self.model(*args, **named)

    @classmethod
    def of(cls, model: nn.Module, call: Signature) -> nn.Module:
        """The model itself where it takes one."""
        return cls(model, call) if len(call.slots) > 1 else model


@dataclass(frozen=True, eq=False)
class Subject:
    """A model to run: a module in evaluation mode, an ONNX file, or both.

    slots: the inputs of a file, none for a module, which takes images.
    """

    module: nn.Module | None
    onnx: Path | None = None
    slots: tuple[Slot, ...] = ()

    def feed(self, inputs: Sequence[Tensor]) -> dict[str, Any]:
        """The arrays that its file takes, by name: the first input, and as many of others as it says."""
        if self.onnx is None and not self.slots:
            raise ValueError("there is no ONNX file of it")
        return feeds_of(self.slots or slots_of(Path(str(self.onnx))), inputs[0].cpu().numpy())


Start = Callable[[Subject, Sequence[Tensor], int], Run]


@dataclass(frozen=True)
class Runtime:
    """How a model is run.

    what: it in a line. start: a subject, its inputs (batch first) and threads to a call without arguments that runs
    it. reads: what of a subject is run. convert: what is made of an exported file first, given inputs. devices:
    where it runs. most: how many ranks of a block are measured in one place, where getting ready takes long.
    """

    what: str
    start: Start
    reads: Literal["module", "file"] = "module"
    convert: Callable[[Path, Path, Sequence[Tensor]], None] | None = None
    devices: tuple[str, ...] = ("cpu",)
    most: int = 64


RUNTIMES: Registry[Runtime] = Registry("runtime")


def _eager(subject: Subject, inputs: Sequence[Tensor], threads: int) -> Run:
    model, given = _module(subject, inputs)
    return _done(lambda: model(*given), given)


def _compiled(subject: Subject, inputs: Sequence[Tensor], threads: int) -> Run:
    from torch._dynamo import config  # takes seconds to import

    model, given = _module(subject, inputs)
    compiled = torch.compile(model, dynamic=False)
    # From the ninth model or batch of the same forward on, torch would not compile, and only log that it did not.
    with config.patch(recompile_limit=config.accumulated_recompile_limit):
        compiled(*given)
    return _done(lambda: compiled(*given), given)


def _module(subject: Subject, inputs: Sequence[Tensor]) -> tuple[nn.Module, list[Tensor]]:
    """The module and what it is given, images channels last, in which convolutions are faster."""
    if subject.module is None:
        raise ValueError("there is no module of it")
    if subject.slots:
        return subject.module, [torch.from_numpy(array) for array in subject.feed(inputs).values()]
    axes = inputs[0].ndim - 2
    model = channels_last(subject.module.to(inputs[0].device), axes)
    layout = LAYOUTS.get(axes, torch.preserve_format)
    return model, [x.contiguous(memory_format=layout) if axes in LAYOUTS and x.ndim == axes + 2 else x for x in inputs]


def _done(run: Run, given: Sequence[Tensor]) -> Run:
    """The run to its end: a GPU answers before it is through."""
    if given[0].device.type == "cpu":
        return run

    def through() -> Any:
        answer = run()
        torch.cuda.synchronize(given[0].device)
        return answer

    return through


def _onnxruntime(subject: Subject, inputs: Sequence[Tensor], threads: int) -> Run:
    if subject.onnx is None:
        raise ValueError("there is no ONNX file of it")
    runtime = session(subject.onnx, threads)  # first: a broken file is told by what reads it
    feed = subject.feed(inputs)
    return lambda: runtime.run(None, feed)


def _to_int8(source: Path, destination: Path, inputs: Sequence[Tensor]) -> None:
    """Calibrated on the inputs alone, which tells no accuracy: the time is the same on all values."""
    quantize(source, destination, [Subject(None, source).feed(inputs)])


RUNTIMES.add("eager", Runtime("PyTorch as it is, channels last.", _eager, devices=DEVICES))
RUNTIMES.add("compile", Runtime("torch.compile, channels last.", _compiled, devices=DEVICES, most=3))
RUNTIMES.add("onnxruntime", Runtime("ONNX Runtime on the exported file.", _onnxruntime, "file"))
RUNTIMES.add(
    "onnxruntime:int8",
    Runtime("ONNX Runtime on the exported file in 8-bit integers, for its time alone.", _onnxruntime, "file", _to_int8),
)


def started(subject: Subject, runtime: Runtime, inputs: Sequence[Tensor], threads: int, converted: bool = False) -> Run:
    """A run of a model on `inputs`: of the file that the runtime makes of its own, unless that is `converted`."""
    if runtime.convert is None or subject.onnx is None or converted:
        return runtime.start(subject, inputs, threads)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "converted.onnx"
        runtime.convert(subject.onnx, path, inputs)
        return runtime.start(Subject(None, path), inputs, threads)


def runtime_of(target: Target) -> Runtime:
    """The entry of a target; raises ConvsmithError where there is none, or no such device."""
    runtime = RUNTIMES[target.runtime]
    kind = target.device.partition(":")[0]
    if kind not in runtime.devices:
        raise ConvsmithError(f"target: {target.runtime} runs on {' and '.join(runtime.devices)}, not on {kind}.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConvsmithError("target: there is no CUDA device here; leave :cuda out.")
    return runtime


@contextmanager
def set_threads(count: int) -> Iterator[None]:
    """Have torch use so many CPU threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
