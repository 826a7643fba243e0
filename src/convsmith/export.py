"""Export a model to a file that other runtimes read, kept only when it computes what the model computes."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import SEEK_SET, RawIOBase, StringIO
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import onnx
import onnxruntime
import torch
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from convsmith.blocks import decompositions
from convsmith.errors import FileError
from convsmith.files import whole
from convsmith.graph.capture import FORWARD_ERRORS
from convsmith.graph.plain import copied, plain
from convsmith.graph.wrappers import unwrapped
from convsmith.pt2 import PT2_ERRORS
from convsmith.registry import Registry
from convsmith.text import times
from convsmith.zoo import input_of

TOLERANCE = 1e-4  # largest error allowed, relative to the output's largest value, for float32
CHECKED_BATCHES = (1, 3)
BATCH = ({0: Dim("batch")},)  # the axes of the one input that may vary
ONNX_LIMIT = 2**31 - 1  # bytes in one protocol buffer

ORT_ERRORS: tuple[type[Exception], ...] = (
    ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.InvalidGraph, ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile, ort_errors.NotImplemented, ort_errors.RuntimeException,
)  # fmt: skip
EXPORT_ERRORS: tuple[type[Exception], ...] = (*FORWARD_ERRORS, *ORT_ERRORS, onnx.checker.ValidationError)


@dataclass(frozen=True)
class ExportCheck:
    """A written file, and its largest error against the model over random inputs of batch 1 and 3.

    Attributes:
        path: The file.
        format: The name of its format, `onnx` or `pt2`.
        opset: The opset of ONNX; None for other formats.
        bytes: The file's size.
        max_abs_error: The largest difference to the output of the model in evaluation mode.
        max_rel_error: The same, relative to the largest value of that output.
    """

    path: Path
    format: str
    opset: int | None
    bytes: int
    max_abs_error: float
    max_rel_error: float


Run = Callable[[Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class Format:
    """How a program is written to a path (answering the ONNX opset, if any), and how the file is read back to run."""

    write: Callable[[ExportedProgram, Path], int | None]
    load: Callable[[Path], Run]


FORMATS: Registry[Format] = Registry("export format")


def export(model: nn.Module, path: str | Path, *, input: tuple[int, ...] | None = None, seed: int = 0) -> ExportCheck:
    """Write a model in evaluation mode to an .onnx or .pt2 file, and check the file against the model.

    Batches of any size run; the image size is fixed. The file stands alone. Rolling pointwise convolutions become plain
    ATen operators, and batch normalization is folded into convolutions in ONNX. The model is left as it was.

    Args:
        model: Any module.
        path: Where to write; the suffix tells the format.
        input: (channels, height, width); by default what a zoo net was built for, else 3, 224, 224.
        seed: Draws the random images that model and file are compared on.

    Returns:
        The file's size in bytes, and its largest error against the model at batch 1 and 3.

    Raises:
        ConvsmithError: When the suffix is unknown, the folder cannot be written, the model cannot be exported, or the
            file's output is off by more than TOLERANCE. No file is left then.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     check = export(nn.Conv2d(3, 8, 3), f"{folder}/net.onnx", input=(3, 8, 8))
    >>> check.format, check.max_rel_error < 1e-4
    ('onnx', True)
    """
    path, input = Path(path), input or input_of(unwrapped(model))
    form = FORMATS[path.suffix.lower()]
    generator = torch.Generator().manual_seed(seed)
    images = [torch.randn(batch, *input, generator=generator) for batch in CHECKED_BATCHES]
    try:
        with whole(path) as draft, quiet():
            replica = evaluation_copy(model)
            opset = form.write(trace(replica, input), draft)
            absolute, relative = _errors(form.load(draft), replica, images)
            size = draft.stat().st_size
            if not relative <= TOLERANCE:  # also true for nan
                raise FileError(
                    f"{path}: the file's output is off by {relative:.1e} of its largest value, "
                    f"more than {TOLERANCE:.0e}; the forward of {type(model).__name__} must be deterministic, finite "
                    "and float32."
                )
    except EXPORT_ERRORS as error:
        raise FileError(
            f"{path}: {type(model).__name__} cannot be exported on input {times(input)}: {reason(error)}; "
            "check the input's shape and the model's forward."
        ) from error
    return ExportCheck(path, path.suffix.lower()[1:], opset, size, absolute, relative)


def evaluation_copy(model: nn.Module) -> nn.Module:
    """A copy on the CPU, in evaluation mode, to export and to measure."""
    replica = copied(plain(unwrapped(model))).cpu()
    # Modules made from a .pt2 file refuse eval(), which they do not need; set on the class, it still reaches children.
    return nn.Module.train(replica, False)


def trace(model: nn.Module, input: tuple[int, ...]) -> ExportedProgram:
    """The program of standard ATen operators that `model` runs on images (batch, *input) of any batch size."""
    with _Inlined(), redirect_stderr(StringIO()):  # where torch prints the graph it could not finish
        program = torch.export.export(model, (torch.zeros(2, *input),), dynamic_shapes=BATCH, strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # would carry this machine's paths into the file
    return program


class _Inlined(TorchFunctionMode):
    """Runs the project's own operators as the ATen calls they are made of, while a model is traced.

    `ExportedProgram.run_decompositions` can do the same, but takes every batch_norm apart on its way.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bodies: dict[Any, Callable[..., Any]] = dict(decompositions())

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the body in place of the operator."""
        return self._bodies.get(func, func)(*args, **(kwargs or {}))


def _write_onnx(program: ExportedProgram, path: Path) -> int:
    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size > ONNX_LIMIT:
        raise FileError(f"One ONNX file holds 2 GB, and this model has {size / 1e9:.1f} GB; export it as .pt2.")
    outputs = [f"output{number or ''}" for number in range(len(program.graph_signature.user_outputs))]
    torch.onnx.export(
        program, (), path, input_names=["input"], output_names=outputs, dynamic_shapes=BATCH,
        external_data=False, verbose=False,
    )  # fmt: skip
    onnx.checker.check_model(path)
    return int(onnx.load(path, load_external_data=False).opset_import[0].version)


def _load_onnx(path: Path) -> Run:
    runtime = session(path, torch.get_num_threads())
    return lambda x: [torch.from_numpy(out) for out in runtime.run(None, {"input": x.numpy()})]


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Open an ONNX file in ONNX Runtime on `threads` threads of the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only
    # A session's threads spin on after a run and take the cores from the next session: two VGG16 run in turn, batch 1
    # on 2 threads, took 8.9 ms each where one alone took 4.2; stopped at the end of each run, both take 4.9.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _write_pt2(program: ExportedProgram, path: Path) -> None:
    with path.open("wb") as file:
        patient = _Patient(file)
        torch.export.save(program, cast(IO[bytes], patient))
        patient.check()


class _Patient(RawIOBase):
    """A file for torch's archive writer, which ends the process where a write fails: it hears of it afterwards."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._failed: OSError | None = None

    def writable(self) -> bool:
        """It is written to."""
        return True

    def seekable(self) -> bool:
        """It has a place."""
        return True

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Go to a place, where nothing has failed yet."""
        return offset if self._failed else self._file.seek(offset, whence)

    def write(self, data: Any) -> int:
        """Write, or note the first failure and take the rest for written."""
        if self._failed is None:
            try:
                self._file.write(data)
                self._file.flush()
            except OSError as error:
                self._failed = error
        return memoryview(data).nbytes

    def check(self) -> None:
        """Raise the first failure."""
        if self._failed is not None:
            raise self._failed


def _load_pt2(path: Path) -> Run:
    model = load_pt2(path).module()  # the draft of a moment ago
    return lambda x: tree_leaves(model(x))


def load_pt2(path: Path) -> ExportedProgram:
    """The program in a .pt2 file by torch, which runs code that the file holds: for files of the user's own alone.

    Raises ConvsmithError where there is none.
    """
    try:
        with path.open("rb") as file, quiet():
            return torch.export.load(file)
    except PT2_ERRORS as error:
        raise FileError(f"{path}: cannot be read ({reason(error)}); export it again.") from error


FORMATS.add(".onnx", Format(_write_onnx, _load_onnx))
FORMATS.add(".pt2", Format(_write_pt2, _load_pt2))


@torch.inference_mode()
def _errors(run: Run, model: nn.Module, images: list[Tensor]) -> tuple[float, float]:
    """The largest absolute error, and the largest relative to the output's largest value; nan where it has one."""
    pairs = [pair for x in images for pair in zip(run(x), tree_leaves(model(x)), strict=True)]
    absolute, relative = torch.stack([_error(got, want) for got, want in pairs]).amax(0).tolist()
    return absolute, relative


def _error(got: Tensor, want: Tensor) -> Tensor:
    if got.shape != want.shape:
        raise ValueError(f"the file answers an output of shape {tuple(got.shape)}, not {tuple(want.shape)}")
    gap = (got - want).abs().max()
    return torch.stack([gap, torch.where(gap == 0, 0.0, gap / want.abs().max())])


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch from logging the stack trace of a failure that the user is told in one sentence."""
    log = logging.getLogger("torch")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)


def reason(error: BaseException) -> str:
    """The first line of the error at the root, which names the operator or the shape that is at fault."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__).rstrip(".:")
