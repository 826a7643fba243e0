"""Shapes of a .pt2 file's inputs are given by name, as those of an .onnx file are."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import convsmith as cs


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 8, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.conv(torch.cat([a, b], 1))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    side, batch = torch.export.Dim("side", min=4, max=512), torch.export.Dim("batch")
    open_ = {0: batch, 2: side, 3: side}
    x = torch.zeros(2, 3, 12, 12)
    torch.export.save(torch.export.export(Two().eval(), (x, x), dynamic_shapes=(open_, open_)), tmp_path / "two.pt2")
    return tmp_path / "two.pt2"


def test_by_name(file: Path) -> None:
    graph = cs.capture_file(file, {"a": (3, 10, 10), "b": (3, 10, 10)})
    assert graph.macs == 8 * 8 * 8 * 6 * 9


def test_one_shape_is_not_for_two_and_strange_names_are_refused(file: Path) -> None:
    with pytest.raises(cs.ConvsmithError, match=r"has 2 inputs \(a, b\)"):
        cs.capture_file(file, (3, 10, 10))
    with pytest.raises(cs.ConvsmithError, match="has no input 'q'; its inputs are a, b"):
        cs.capture_file(file, {"q": (3, 10, 10)})
    with pytest.raises(cs.ConvsmithError, match="of its input 'b' is open"):
        cs.capture_file(file, {"a": (3, 10, 10)})
