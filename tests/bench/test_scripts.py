"""The scripts of bench/ and docs/ ask the package for names that it has."""

import ast
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = [str(path.relative_to(ROOT)) for folder in ("bench", "docs") for path in (ROOT / folder).rglob("*.py")]


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_a_script_imports_what_there_is(script: str) -> None:
    asked = [node for node in ast.walk(ast.parse((ROOT / script).read_text())) if isinstance(node, ast.ImportFrom)]
    missing = [
        f"{node.module}.{alias.name}"
        for node in asked
        if node.module and node.module.split(".")[0] == "convsmith"
        for alias in node.names
        if alias.name not in dir(import_module(node.module)) and find_spec(f"{node.module}.{alias.name}") is None
    ]
    assert missing == []


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) > 30
