"""The formats a program is written in, and how each file is read back to run."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import SEEK_SET, RawIOBase, StringIO
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_unflatten

from convsmith.blocks import decompositions
from convsmith.errors import FileError
from convsmith.formats.runtime import quiet, reason, session
from convsmith.graph.plain import copied, plain
from convsmith.graph.signature import Signature
from convsmith.graph.wrappers import unwrapped
from convsmith.pt2 import PT2_ERRORS
from convsmith.registry import Registry

METADATA = "metadata.json"  # among the extra files of a .pt2
INPUT = "input"  # what the images are called in ONNX files
BATCH = {0: Dim("batch")}  # the axis of inputs that may vary
ONNX_LIMIT = 2**31 - 1  # bytes in one protocol buffer

Run = Callable[[Sequence[Tensor]], Sequence[Tensor]]  # on the inputs in the order of the program's


@dataclass(frozen=True)
class Format:
    """How a program is written to a path (answering the ONNX opset, if any), and how the file is read back to run.

    Both get the program; what is written also gets texts by name that the file tells of itself, where it can.
    """

    write: Callable[[ExportedProgram, Path, Mapping[str, str]], int | None]
    load: Callable[[ExportedProgram, Path], Run]


FORMATS: Registry[Format] = Registry("export format")


def evaluation_copy(model: nn.Module) -> nn.Module:
    """A copy on the CPU in float32 and in evaluation mode, to export and to measure.

    Runtimes on CPUs have no convolution in bfloat16 or float64, and take float16 to float32 and back.
    """
    replica = copied(plain(unwrapped(model))).cpu().float()
    # Modules made from a .pt2 file refuse eval(), which they do not need; set on the class, it still reaches children.
    return nn.Module.train(replica, False)


def other_precision(model: nn.Module) -> str:
    """A note where a model's weights are of other types than its copy's float32; else nothing.

    >>> other_precision(nn.Conv2d(3, 8, 3).half()), other_precision(nn.Conv2d(3, 8, 3))
    ('its weights are float16, and this is float32', '')
    """
    kinds = dict.fromkeys(p.dtype for p in model.parameters() if p.is_floating_point() and p.dtype != torch.float32)
    told = " and ".join(str(kind).removeprefix("torch.") for kind in kinds)
    return f"its weights are {told}, and this is float32" if told else ""


def placed(model: nn.Module, call: Signature, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, by position wherever forward takes them so: the order of a program's inputs."""
    args, named = call.call(tensors)
    bound = inspect.signature(model.forward).bind(*args, **named)
    return bound.args, bound.kwargs


def trace(model: nn.Module, call: Signature) -> ExportedProgram:
    """The program of standard ATen operators that a model in float32 runs when it is called so, on any batch size."""
    images = [x.float() if x.is_floating_point() else x for x in call.tensors(batch=2)]
    args, named = placed(model, call, images)
    given, others = placed(model, call, [BATCH if slot.batched else None for slot in call.slots])
    varying = dict(inspect.signature(model.forward).bind(*given, **others).arguments)
    with _Inlined(), redirect_stderr(StringIO()):  # where torch prints the graph it could not finish
        program = torch.export.export(model, args, named, dynamic_shapes=varying, strict=False)
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


def _write_onnx(program: ExportedProgram, path: Path, about: Mapping[str, str]) -> int:
    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size > ONNX_LIMIT:
        raise FileError(f"One ONNX file holds 2 GB, and this model has {size / 1e9:.1f} GB; export it as .pt2.")
    outputs = [f"output{number or ''}" for number in range(len(program.graph_signature.user_outputs))]
    names = input_names(program)
    torch.onnx.export(
        program, (), path, input_names=names, output_names=outputs, dynamic_shapes=(BATCH, *[None] * (len(names) - 1)),
        external_data=False, verbose=False,
    )  # fmt: skip
    describe(path, about)
    onnx.checker.check_model(path)
    return int(onnx.load(path, load_external_data=False).opset_import[0].version)


def input_names(program: ExportedProgram) -> list[str]:
    """What a program's inputs are called in its ONNX file: INPUT where there is one, else by forward's arguments."""
    names = [str(name) for name in program.graph_signature.user_inputs]
    return names if len(names) > 1 else [INPUT]


def describe(path: Path, about: Mapping[str, str]) -> None:
    """Have an ONNX file tell of itself."""
    model = onnx.load(path)
    own = {each.key: each.value for each in model.metadata_props}
    onnx.helper.set_model_props(model, own | dict(about))
    onnx.save(model, path)


def _load_onnx(program: ExportedProgram, path: Path) -> Run:
    runtime = session(path, torch.get_num_threads())
    names = input_names(program)
    return lambda given: [
        torch.from_numpy(out)
        for out in runtime.run(None, {name: x.numpy() for name, x in zip(names, given, strict=True)})
    ]


def _write_pt2(program: ExportedProgram, path: Path, about: Mapping[str, str]) -> None:
    with path.open("wb") as file:
        patient = _Patient(file)
        torch.export.save(program, cast(IO[bytes], patient), extra_files={METADATA: json.dumps(dict(about))})
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


def _load_pt2(program: ExportedProgram, path: Path) -> Run:
    model = load_pt2(path).module()  # the draft of a moment ago
    return _called(program, model)


def _called(program: ExportedProgram, model: nn.Module) -> Run:
    """A program's module, called with its inputs as forward takes them."""
    places = program.call_spec.in_spec

    def run(given: Sequence[Tensor]) -> Sequence[Tensor]:
        args, named = tree_unflatten(given, places)
        return tree_leaves(model(*args, **named))

    return run


def load_pt2(path: Path) -> ExportedProgram:
    """The program in a .pt2 file by torch, which runs code that the file holds: for files of the user's own alone.

    Raises ConvsmithError where there is none.
    """
    try:
        with path.open("rb") as file, quiet():
            return torch.export.load(file)
    except PT2_ERRORS as error:
        raise FileError(f"{path}: cannot be read ({reason(error)}); export it again.") from error


def _write_state(program: ExportedProgram, path: Path, about: Mapping[str, str]) -> None:
    with path.open("wb") as file:
        torch.save({name: tensor.detach().clone() for name, tensor in program.state_dict.items()}, file)


def _load_state(program: ExportedProgram, path: Path) -> Run:
    model = program.module()
    model.load_state_dict(torch.load(path, weights_only=True))
    return _called(program, model)


FORMATS.add(".onnx", Format(_write_onnx, _load_onnx))
FORMATS.add(".pt2", Format(_write_pt2, _load_pt2))
FORMATS.add(".pt", Format(_write_state, _load_state))
