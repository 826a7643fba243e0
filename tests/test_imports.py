"""The house: imports go down the levels, `__init__` files only re-export, files are small and say what they are."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "convsmith"
LEVELS = (
    "text errors arguments lazy bounds limits progress registry garbage files locks torchrun environment markup target"
    " plan",
    "reach algebra",
    "kernels blocks zoo",
    "graph structure score",
    "calibration pt2 formats quantize latency",
    "rewriting planning",
    "data train export load bench optimize",
    "report testing",
    "cli",
    "__main__",
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names.split()}
ORDER = {name: place for place, name in enumerate(" ".join(LEVELS).split())}

FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
INITS = [name for name in FILES if name.endswith("/__init__.py")]  # tests/test_package.py has the package's own


def unit(name: str) -> str:
    """The module or package of the table that a file belongs to."""
    return name.split("/")[0].removesuffix(".py")


def imported(name: str) -> Iterator[str]:
    """What a file imports from the package, as dotted names below `convsmith`."""
    for node in ast.walk(ast.parse((PACKAGE / name).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "convsmith":
            base = node.module.split(".")[1:]
            yield from [".".join(base)] if base else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("convsmith"))


def test_every_module_has_its_level() -> None:
    assert {unit(name) for name in FILES} - {"__init__"} == set(LEVEL)


@pytest.mark.parametrize("name", [name for name in FILES if name != "__init__.py"])
def test_imports_go_down(name: str) -> None:
    own = unit(name)
    for target in (path.split(".")[0] for path in imported(name)):
        if target != own:
            assert LEVEL[target] <= LEVEL[own], f"{name} imports {target} from a higher level"
            assert ORDER[target] < ORDER[own], f"{name} imports {target}, which is not listed before {own}"


def test_files_of_one_package_do_not_import_in_a_circle() -> None:
    edges = {
        name.removesuffix(".py").replace("/", "."): {
            path for path in imported(name) if unit(name) == path.split(".")[0]
        }
        for name in FILES
        if "/" in name and not name.endswith("__init__.py")
    }
    done: set[str] = set()
    while ready := {name for name, needs in edges.items() if name not in done and needs & edges.keys() <= done}:
        done |= ready
    assert done == edges.keys()


@pytest.mark.parametrize("name", INITS)
def test_init_files_only_reexport(name: str) -> None:
    document, *rest = ast.parse((PACKAGE / name).read_text()).body
    assert isinstance(document, ast.Expr)
    for node in rest:
        assert isinstance(node, ast.ImportFrom) or (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id in ("__all__", "__version__")
        )


@pytest.mark.parametrize("name", FILES)
def test_files_are_small_and_open_with_a_sentence(name: str) -> None:
    text = (PACKAGE / name).read_text()
    tree = ast.parse(text)
    told = sum(len((ast.get_docstring(node, clean=False) or "").splitlines()) for node in ast.walk(tree)
               if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef))  # fmt: skip
    assert len(text.splitlines()) - told <= 300, "without its docstrings"
    document = ast.get_docstring(tree)
    assert document
    assert document.splitlines()[0][-1] in ".:"


@pytest.mark.parametrize("name", FILES)
def test_functions_are_small(name: str) -> None:
    for node in ast.walk(ast.parse((PACKAGE / name).read_text())):
        if isinstance(node, ast.FunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            body = (node.end_lineno or 0) - first.lineno + 1
            assert body <= 40, f"{node.name} has {body} lines"


@pytest.mark.parametrize("name", FILES)
def test_no_looking_for_attributes_and_no_catching_of_everything(name: str) -> None:
    for node in ast.walk(ast.parse((PACKAGE / name).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "hasattr"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None
            assert not (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))
        assert not isinstance(node, ast.Global)
