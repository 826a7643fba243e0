"""Models made ready to be measured side by side: modules exported, files of several kinds read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from convsmith.errors import ConvsmithError, FileError
from convsmith.export import evaluation_copy, export, load_pt2, reason
from convsmith.graph.signature import Shapes, Signature, each_shape
from convsmith.latency.files import slots_of, slots_of_program
from convsmith.latency.targets import RUNTIMES, Called, Subject
from convsmith.pt2 import inputs_of, read_program


@dataclass(frozen=True, eq=False)
class Named:
    """A model to measure, by name; `unfit` tells where it cannot run, and why, by what runtimes read.

    `beside` says that it stands beside its model, so that nobody misses it where it does not run.
    """

    name: str
    subject: Subject
    unfit: Mapping[str, str]
    beside: bool = False

    def misfit(self, runtime: str) -> str | None:
        """Why it cannot run there; None where it can."""
        return self.unfit.get(runtime) or self.unfit.get(RUNTIMES[runtime].reads)


def named_subject(
    name: str, model: nn.Module | Path, input: Shapes, onnx: Mapping[str, Path], folder: Path | None,
    seed: int, trust: bool = False,
) -> Named:  # fmt: skip
    """A model made ready; folder: where to export a module that has no ONNX file yet, None where that is not needed.

    trust: whether torch may load a .pt2 file that cannot be read as plain data.
    """
    if isinstance(model, Path):
        return _file(name, model, trust)
    replica = evaluation_copy(model)
    if len(each_shape(input)) > 1:
        replica = Called(replica, Signature.of_shapes(replica, input))
    if name in onnx or folder is None:
        return Named(name, Subject(replica, onnx.get(name)), {})
    try:
        path = folder / f"{len(list(folder.iterdir()))}.onnx"
        return Named(name, Subject(replica, export(model, path, input=input, seed=seed).path), {})
    except ConvsmithError as error:
        return Named(name, Subject(replica), {"file": reason(error)})


def _file(name: str, path: Path, trust: bool) -> Named:
    if not path.is_file() or path.suffix not in (".onnx", ".pt2"):
        raise FileError(f"{path}: cannot be measured; give a .onnx or .pt2 file that is there.")
    if path.suffix == ".onnx":
        return Named(name, Subject(None, path, slots_of(path)), {"module": "a .onnx file runs in onnxruntime only"})
    unfit = dict.fromkeys(("compile", "file"), "a .pt2 file runs in eager only")
    if trust:
        exported = load_pt2(path)
        return Named(name, Subject(exported.module(), None, slots_of_program(inputs_of(exported))), unfit)
    program = read_program(path)
    return Named(name, Subject(program, None, slots_of_program(program.inputs)), unfit)
