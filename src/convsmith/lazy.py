"""A package whose names are imported when they are first asked for."""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from types import FunctionType, ModuleType
from typing import Any

from convsmith.arguments import checked


class Lazy(ModuleType):
    """A package that finds what it offers in the modules of `homes`, by name.

    Functions found so tell of arguments of a wrong type. A name may be that of a subpackage too, as `convsmith.train`
    is: importing that enters it into the package, which is not let stand in the name's place.
    """

    homes: Mapping[str, str]

    def __getattr__(self, name: str) -> Any:
        homes = self.__dict__.get("homes", {})
        if name in homes:
            value = getattr(import_module(homes[name]), name)
            value = checked(value) if isinstance(value, FunctionType) else value
            self.__dict__[name] = value
            return value
        path = f"{self.__name__}.{name}"
        if name.startswith("_") or find_spec(path) is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return import_module(path)

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in self.__dict__.get("homes", {})):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.__dict__.get("homes", {})})
