"""Every block family and every method has a page, and what stands on it runs."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from convsmith.algebra import METHODS
from convsmith.blocks import BLOCKS, parse_block
from convsmith.cli.app import app

DOCS = Path(__file__).parent.parent / "docs"
FAMILIES = sorted((DOCS / "blocks").glob("*.md"))
METHOD_PAGES = sorted((DOCS / "methods").glob("*.md"))
PAGES = {f"{path.parent.name}/{path.name}": path for path in (*FAMILIES, *METHOD_PAGES)}
SECTIONS = ("Use it", "Settings", "Trade-offs", "Source")


def names_of(path: Path) -> list[str]:
    """The names in a page's title."""
    return re.findall(r"`([\w-]+)`", path.read_text().splitlines()[0])


def commands(path: Path) -> list[list[str]]:
    """What the page has the reader type, each as words, for a net a third as deep."""
    lines = re.findall(r"^    (convsmith .+)$", path.read_text(), re.MULTILINE)
    short = [re.sub(r"\bresnet20\b", "resnet20 --blocks-per-stage 1,1,1", line) for line in lines]
    return [shlex.split(line)[1:] for line in short]


def test_every_block_has_one_page() -> None:
    named = [name for path in FAMILIES for name in names_of(path)]
    assert sorted(named) == sorted(BLOCKS)


def test_every_method_has_one_page() -> None:
    assert {path.stem for path in METHOD_PAGES} == set(METHODS)
    assert [names_of(path) for path in METHOD_PAGES] == [[path.stem] for path in METHOD_PAGES]


@pytest.mark.parametrize("method", METHODS)
def test_a_methods_page_names_the_blocks_that_it_fits(method: str) -> None:
    text = (DOCS / "methods" / f"{method}.md").read_text()
    fitted = {form.name for form in METHODS[method]}
    assert fitted <= set(re.findall(r"`([\w-]+)`", text))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_short_and_has_its_sections(page: str) -> None:
    lines = PAGES[page].read_text().splitlines()
    assert 30 <= len(lines) <= 60
    heads = " ".join(line for line in lines if line.startswith("## "))
    assert [each for each in SECTIONS if each not in heads] == []


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    typed = commands(PAGES[page])
    assert len(typed) >= 2
    for words in typed:
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, f"{shlex.join(words)}\n{done.output}"


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGES[page].read_text(), re.DOTALL)
    short = code.replace('cs.build("resnet20")', 'cs.build("resnet20", blocks_per_stage=(1, 1, 1))')
    exec(compile(short, page, "exec"), {})
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_that_a_page_writes_are_read(page: str) -> None:
    text = PAGES[page].read_text()
    written = re.findall(rf"[`\" ]((?:{'|'.join(BLOCKS)}):\w+=?[^`\s]*?)[`\"\s]", text)
    concrete = [each for each in written if re.search(r"[=(]\.?\d|^seq:", each) and ".." not in each]
    for each in concrete:
        assert parse_block(each)
    assert concrete or "methods/" in page
