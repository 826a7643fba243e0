"""The page on what a file can do: every test that it names is there, and the promises that no other file holds."""

import ast
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from convsmith.cli.app import app
from convsmith.data import load_data
from convsmith.errors import ConvsmithError

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "security.md").read_text()
NAMED = re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE)


def test_every_promise_names_a_test() -> None:
    promises = PAGE[PAGE.index("## What is promised") : PAGE.index("## Consent")]
    items = re.split(r"^\d+\. ", promises, flags=re.MULTILINE)[1:]
    assert len(items) == 14
    assert all("::test_" in item for item in items)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_that_the_page_names_is_there(file: str, name: str) -> None:
    (path,) = TESTS.rglob(file)
    tree = ast.parse(path.read_text())
    assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_the_sources_that_the_page_links_are_there() -> None:
    links = re.findall(r"\]\(\.\./([^)]+)\)", PAGE)
    assert links
    assert all((TESTS.parent / link).is_file() for link in links)


def test_every_command_with_a_model_takes_consent_and_says_what_it_means() -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        takes = command.callback.__annotations__
        assert ("trust" in takes) == ("model" in takes or "models" in takes), command.callback.__name__


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.mark,)


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_a_forged_cifar_archive_is_not_unpickled(tmp_path: Path, kind: str) -> None:
    mark, folder = tmp_path / "ran", tmp_path / {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[kind]
    folder.mkdir()
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch",
                 "batches.meta", "train", "test", "meta"):  # fmt: skip
        (folder / name).write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(ConvsmithError):
        load_data(f"{kind}:{tmp_path}")
    assert not mark.exists()
