"""Every test can fail: it asserts something, itself or by a helper that does."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TREES = {path.relative_to(TESTS).as_posix(): ast.parse(path.read_text()) for path in TESTS.rglob("*.py")}
FILES = sorted(name for name in TREES if name.split("/")[-1].startswith("test_"))
# What fails by itself where something is wrong: of pytest and torch, and the judges that convsmith.testing ships.
JUDGES = {
    "raises",
    "fail",
    "assert_close",
    "assert_allclose",
    "check_block",
    "check_method",
    "check_net",
    "check_onnx",
    "check_target",
}


def functions(tree: ast.Module) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def calls(function: ast.FunctionDef) -> set[str]:
    """The names of what a function calls, whatever they are called on."""
    called = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    return {ast.unparse(name).split(".")[-1] for name in called}


def asserts(function: ast.FunctionDef) -> bool:
    """Whether something in it can fail: an assert of more than a constant, or a judge."""
    found = [node.test for node in ast.walk(function) if isinstance(node, ast.Assert)]
    return any(not isinstance(test, ast.Constant) for test in found) or bool(calls(function) & JUDGES)


def helpers() -> set[str]:
    """Functions of the tests that assert, directly or through others."""
    every = [node for tree in TREES.values() for node in functions(tree) if not node.name.startswith("test_")]
    able = {node.name for node in every if asserts(node)}
    while more := {node.name for node in every if calls(node) & able} - able:
        able |= more
    return able


HELPERS = helpers()


@pytest.mark.parametrize("file", FILES)
def test_every_test_asserts(file: str) -> None:
    tests = [node for node in functions(TREES[file]) if node.name.startswith("test_")]
    assert tests
    assert [node.name for node in tests if not (asserts(node) or calls(node) & HELPERS)] == []


def test_what_asserts_nothing_is_found() -> None:
    for text in ("f()", "assert True", "x = 3"):
        (function,) = functions(ast.parse(f"def test_it():\n    {text}"))
        assert not asserts(function)
