"""The documentation site: the tutorial runs as a notebook, the command line reference is that of the commands."""

import importlib.util
from pathlib import Path

import nbformat
from nbclient import NotebookClient

DEEP = 'cs.build("resnet20", '
DOCS = Path(__file__).parents[1] / "docs"


def test_the_tutorial_runs_as_a_notebook(tmp_path: Path) -> None:
    """From a trained net to a file that ONNX Runtime reads; here the net is a third as deep."""
    notebook = nbformat.read(DOCS / "tutorial.ipynb", as_version=4)
    (first,) = (cell for cell in notebook.cells if "cs.build(" in cell.source)
    assert DEEP in first.source
    first.source = first.source.replace(DEEP, f"{DEEP}blocks_per_stage=(1, 1, 1), ")
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(
        output.get("text", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )
    for said in ("multiply-accumulates", "without any training", "largest relative error", "right in ONNX Runtime"):
        assert said in printed
    assert list(tmp_path.iterdir()) == [], "the tutorial leaves nothing behind"


def test_the_command_line_reference_is_that_of_the_commands() -> None:
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    assert (DOCS / "cli.md").read_text() == reference.page(), "run docs/reference.py"
