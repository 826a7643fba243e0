"""Files are written whole or not at all."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from convsmith.errors import ConvsmithError
from convsmith.files import whole, write_text


def test_a_file_appears_with_its_folder_and_nothing_beside_it(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.txt", "grüße")
    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "grüße"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    expected = ConvsmithError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), whole(path) as draft:
        draft.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with whole(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_what_a_library_keeps_to_the_owner_gets_the_mode_of_any_file(tmp_path: Path) -> None:
    write_text(tmp_path / "text", "plain")
    with whole(tmp_path / "weights") as draft:
        save_file({"a": torch.zeros(1)}, draft)
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "text").stat().st_mode


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConvsmithError, match=r"cannot be written .*choose another folder"):
        write_text(tmp_path / "file" / "a.txt", "text")
    for path in (tmp_path / "folder", Path()):
        with pytest.raises(ConvsmithError, match=r"is a folder; give the name of a file\.$"):
            write_text(path, "text")
