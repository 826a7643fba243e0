"""The package: what it offers is imported when it is first asked for, and is the same for checkers of types."""

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import convsmith as cs

SOURCE = Path(cs.__file__).read_text()


def told_to_checkers() -> dict[str, str]:
    """The imports that only checkers of types follow, as name to module."""
    blocks = [node for node in ast.parse(SOURCE).body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def test_three_lists_of_what_there_is_agree() -> None:
    assert told_to_checkers() == cs.homes
    assert sorted(cs.__all__) == sorted(cs.homes)
    assert set(dir(cs)) >= set(cs.__all__)


@pytest.mark.parametrize("name", cs.__all__)
def test_every_name_is_there_and_no_module(name: str) -> None:
    assert callable(getattr(cs, name))
    assert not isinstance(getattr(cs, name), ModuleType)


def test_a_verb_keeps_its_name_against_the_module_that_is_called_like_it() -> None:
    verbs = [name for name, home in cs.homes.items() if home == f"convsmith.{name}"]
    assert {"bench", "export", "load", "optimize", "report", "train"} <= {*verbs}
    code = f"import importlib, convsmith as cs\nfor name in {verbs}: importlib.import_module('convsmith.' + name)\n"
    code += f"assert all(callable(getattr(cs, name)) for name in {verbs})\nfrom convsmith import train\n"
    code += "assert callable(train) and cs.zoo.NETS, 'what is no verb is its module'"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_what_is_not_there_is_told_as_python_tells_it() -> None:
    with pytest.raises(AttributeError, match="module 'convsmith' has no attribute 'frobnicate'"):
        _ = cs.frobnicate
