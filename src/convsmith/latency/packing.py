"""Many small nets made ready for a runtime at once: one export of all of them, taken apart into a file each."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx.utils import Extractor
from torch import Tensor, nn

from convsmith.formats import FORMATS, evaluation_copy, trace
from convsmith.graph.signature import Signature
from convsmith.latency.targets import Runtime, Subject


@contextmanager
def pack(modules: Mapping[str, nn.Module], runtime: Runtime, inputs: Sequence[Tensor]) -> Iterator[dict[str, Subject]]:
    """Subjects of modules that take the same image, as the runtime reads them; their files are there for a while.

    An export takes a second whatever its size, so that all go into one; so does what the runtime converts.
    """
    copies = {name: evaluation_copy(module) for name, module in modules.items()}
    if runtime.reads == "module":
        yield {name: Subject(module) for name, module in copies.items()}
        return
    with TemporaryDirectory() as folder:
        yield dict(zip(copies, _files(list(copies.values()), runtime, inputs, Path(folder)), strict=True))


def _files(modules: Sequence[nn.Module], runtime: Runtime, inputs: Sequence[Tensor], folder: Path) -> list[Subject]:
    whole, ready = folder / "all.onnx", folder / "ready.onnx"
    side = _Side(modules)
    FORMATS[".onnx"].write(trace(side, Signature.of(side, inputs[:1])), whole, {})
    if runtime.convert is None:
        ready = whole
    else:
        runtime.convert(whole, ready, inputs)
    model = onnx.load(ready)
    parts = Extractor(model)
    subjects = []
    for number, output in enumerate(model.graph.output):
        path = folder / f"{number}.onnx"
        onnx.save(parts.extract_model([model.graph.input[0].name], [output.name]), path)
        subjects.append(Subject(None, path))
    return subjects


class _Side(nn.Module):
    """Modules side by side on one input."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [part(x) for part in self.parts]
