"""Docstrings and pages are read at ease: no public name goes without a docstring, no sentence has over 25 words."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from prose import long_sentences, sentences

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "convsmith"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if path.name != "CHANGELOG.md"
)
Documented = ast.Module | ast.ClassDef | ast.FunctionDef


def documented(module: str) -> list[Documented]:
    """All of a module that can have a docstring."""
    nodes = ast.walk(ast.parse((PACKAGE / module).read_text()))
    return [node for node in nodes if isinstance(node, Documented)]


def public(node: ast.Module | ast.ClassDef, name: str) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    """What a module shows: its classes and functions, and their methods."""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            if "overload" not in [ast.unparse(decorator) for decorator in child.decorator_list]:
                yield f"{name}.{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{name}.{child.name}")


@pytest.mark.parametrize("module", MODULES)
def test_what_is_public_has_a_docstring(module: str) -> None:
    tree = ast.parse((PACKAGE / module).read_text())
    assert ast.get_docstring(tree)
    assert [name for name, node in public(tree, module) if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("module", MODULES)
def test_sentences_of_docstrings_are_short(module: str) -> None:
    texts = [ast.get_docstring(node) or "" for node in documented(module)]
    assert [sentence for text in texts for sentence in long_sentences(text)] == []


@pytest.mark.parametrize("page", PAGES)
def test_sentences_of_pages_are_short(page: str) -> None:
    assert long_sentences((ROOT / page).read_text()) == []


def test_long_sentences_are_found() -> None:
    words = " ".join(["word"] * 26)
    for text in (f"{words}.", f"Short.\n\nA `b c d`. {words}.\n", f"- {words}", f"Args:\n    x: {words}."):
        assert len(long_sentences(text)) == 1
    for text in (f"```\n{words}\n```", f"| {words} |", f"text\n\n    {words}\n", f">>> f()\n{words}\n", f"`{words}`."):
        assert long_sentences(text) == []
    assert list(sentences("One (Wang et al., 2021). Two: three.")) == ["One .", "Two:", "three."]
