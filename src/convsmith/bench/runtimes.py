"""What a model can run in: eager torch, torch.compile, ONNX Runtime."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convsmith.bench.files import Slot, feeds_of, slots_of, slots_of_program
from convsmith.errors import ConvsmithError, FileError
from convsmith.export import ORT_ERRORS, evaluation_copy, export, load_pt2, reason, session
from convsmith.graph.capture import FORWARD_ERRORS
from convsmith.latency.measure import LAYOUTS, channels_last
from convsmith.pt2 import inputs_of, read_program
from convsmith.registry import Registry

# OSError is torch.compile's where its cache folder cannot be written.
RUN_ERRORS: tuple[type[Exception], ...] = (*FORWARD_ERRORS, *ORT_ERRORS, ConvsmithError, OSError)


@dataclass(frozen=True, eq=False)
class Subject:
    """A model to measure, as a module in evaluation mode and as an ONNX file; `unfit` tells why not, by runtime.

    `slots` are the inputs of a file, none for a module, which takes images. `beside` says that it stands beside its
    model, so that nobody misses it where it does not run.
    """

    name: str
    module: nn.Module | None
    onnx: Path | None
    unfit: Mapping[str, str]
    slots: tuple[Slot, ...] = ()
    beside: bool = False


Run = Callable[[], Any]
RUNTIMES: Registry[Callable[[Subject, Tensor, int], Run]] = Registry("runtime")  # (subject, images, threads) -> a run


@RUNTIMES.register("eager")
def _eager(subject: Subject, images: Tensor, threads: int) -> Run:
    """PyTorch as it is, channels last."""
    if subject.module is not None and subject.slots:
        module = subject.module
        given = [torch.from_numpy(array) for array in feeds_of(subject.slots, images.numpy()).values()]
        return lambda: module(*given)
    model, x = _channels_last(subject, images)
    return lambda: model(x)


@RUNTIMES.register("compile")
def _compiled(subject: Subject, images: Tensor, threads: int) -> Run:
    """torch.compile, channels last."""
    from torch._dynamo import config  # takes seconds to import

    model, x = _channels_last(subject, images)
    compiled = torch.compile(model, dynamic=False)
    # From the ninth model or batch of the same forward on, torch would not compile, and only log that it did not.
    with config.patch(recompile_limit=config.accumulated_recompile_limit):
        compiled(x)
    return lambda: compiled(x)


def _channels_last(subject: Subject, images: Tensor) -> tuple[nn.Module, Tensor]:
    if subject.module is None:
        raise ValueError("there is no module of it")
    axes = images.ndim - 2
    if axes not in LAYOUTS:
        return subject.module, images
    return channels_last(subject.module, axes), images.contiguous(memory_format=LAYOUTS[axes])


@RUNTIMES.register("onnxruntime")
def _onnxruntime(subject: Subject, images: Tensor, threads: int) -> Run:
    """ONNX Runtime on the exported file."""
    if subject.onnx is None:
        raise ValueError("there is no ONNX file of it")
    runtime = session(subject.onnx, threads)
    feed = feeds_of(subject.slots or slots_of(subject.onnx), images.numpy())
    return lambda: runtime.run(None, feed)


def subject_of(
    name: str, model: nn.Module | Path, input: tuple[int, ...], onnx: Mapping[str, Path], folder: Path | None,
    seed: int, trust: bool = False,
) -> Subject:  # fmt: skip
    """A model made ready; folder: where to export a module that has no ONNX file yet, None where that is not needed.

    trust: whether torch may load a .pt2 file that cannot be read as plain data.
    """
    if isinstance(model, Path):
        return _file(name, model, trust)
    replica = evaluation_copy(model)
    if name in onnx or folder is None:
        return Subject(name, replica, onnx.get(name), {})
    try:
        path = folder / f"{len(list(folder.iterdir()))}.onnx"
        return Subject(name, replica, export(replica, path, input=input, seed=seed).path, {})
    except ConvsmithError as error:
        return Subject(name, replica, None, {"onnxruntime": reason(error)})


def _file(name: str, path: Path, trust: bool) -> Subject:
    if not path.is_file() or path.suffix not in (".onnx", ".pt2"):
        raise FileError(f"{path}: cannot be measured; give a .onnx or .pt2 file that is there.")
    if path.suffix == ".onnx":
        unfit = dict.fromkeys(("eager", "compile"), "a .onnx file runs in onnxruntime only")
        return Subject(name, None, path, unfit, slots_of(path))
    unfit = dict.fromkeys(("compile", "onnxruntime"), "a .pt2 file runs in eager only")
    if trust:
        exported = load_pt2(path)
        return Subject(name, exported.module(), None, unfit, slots_of_program(inputs_of(exported)))
    program = read_program(path)
    return Subject(name, program, None, unfit, slots_of_program(program.inputs))
