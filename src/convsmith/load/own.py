"""A user's own code as a source of models: `package.module:factory`, or `path/file.py:factory`."""

import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, TracebackType

from torch import nn

from convsmith.errors import ConvsmithError, reason_of

ADVICE = (
    "give package.module:factory or path/file.py:factory, importable from here, with a factory that needs no arguments"
)


class Told:
    """Tells whatever a user's code raises, `sys.exit` and errors of its own among them, as one mistake of the user's.

    Only Ctrl-C goes through.

    >>> with Told("own:make", "give another factory"):
    ...     raise SystemExit(3)
    Traceback (most recent call last):
    convsmith.errors.ConvsmithError: own:make: SystemExit: 3; give another factory.
    """

    def __init__(self, what: str, advice: str) -> None:
        self._what, self._advice = what, advice

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell an error as one sentence."""
        if error is None or isinstance(error, KeyboardInterrupt | ConvsmithError):
            return
        raise ConvsmithError(f"{self._what}: {reason_of(error)}; {self._advice}.") from error


def own_model(reference: str) -> nn.Module:
    """Call the factory of a reference; a module is looked for in the working directory first.

    Raises ConvsmithError where there is no such module or factory, on all that they raise, and on what is no module.
    """
    name, _, factory = reference.rpartition(":") if ".py:" in reference else reference.partition(":")
    with Told(reference, ADVICE):
        model = getattr(_imported(name), factory)()
    if not isinstance(model, nn.Module):
        raise ConvsmithError(f"{reference}: the factory gave a {type(model).__name__}; let it return an nn.Module.")
    return model


def _imported(name: str) -> ModuleType:
    path = Path(name).expanduser()
    if path.suffix != ".py":
        _look_in(Path.cwd())
        return import_module(name)
    if not path.is_file():
        raise ConvsmithError(f"{name}: no such file; check the path.")
    path = path.resolve()
    _look_in(path.parent)  # for what it imports itself from beside it
    spec = spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConvsmithError(f"{name}: is no Python file; give package.module:factory.")
    module = module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses and pickles of its classes look it up there
    spec.loader.exec_module(module)
    return module


def _look_in(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
