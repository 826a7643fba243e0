"""What a user calls is described in full: every argument, what comes back, and what goes wrong."""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import convsmith as cs

API = Path(__file__).parent.parent / "docs" / "api.md"


def listed() -> dict[str, Any]:
    """What docs/api.md lists, by its path, and what the package exports."""
    found = {name: getattr(cs, name) for name in cs.__all__}
    for path in re.findall(r"^::: (\S+)", API.read_text(), re.MULTILINE):
        module, _, name = path.rpartition(".")
        found[path] = getattr(importlib.import_module(module), name)
    return found


def section(value: Any, title: str) -> str:
    """The indented text below a section's title."""
    doc = inspect.cleandoc(value.__doc__ or "")
    found = re.search(rf"^{title}:\n((?:    .*\n|\n(?=    ))+)", f"{doc}\n", re.MULTILINE)
    return found[1] if found else ""


def described(value: Any, title: str) -> list[str]:
    return re.findall(r"^    \*{0,2}(\w+): \S", section(value, title), re.MULTILINE)


FUNCTIONS = {name: value for name, value in listed().items() if inspect.isfunction(value)}
RECORDS = {name: value for name, value in listed().items() if dataclasses.is_dataclass(value)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_of_a_verb_is_described(name: str) -> None:
    verb = FUNCTIONS[name]
    assert described(verb, "Args") == list(inspect.signature(verb).parameters)
    assert section(verb, "Returns")
    assert ">>> " in verb.__doc__, "an example that runs"


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if not name.endswith("measure_latency")])
def test_what_a_verb_raises_is_told(name: str) -> None:
    assert described(FUNCTIONS[name], "Raises") == ["ConvsmithError"]


@pytest.mark.parametrize("name", RECORDS)
def test_every_field_of_a_record_is_described(name: str) -> None:
    record = RECORDS[name]
    fields = [each.name for each in dataclasses.fields(record) if each.name != "kind"]
    assert described(record, "Attributes") == fields


def test_verbs_and_records_are_many() -> None:
    assert len(FUNCTIONS) > 40 and len(RECORDS) > 10
