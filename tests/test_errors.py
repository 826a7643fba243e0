"""A caller can tell mistakes apart by their class, and every class is told in one plain sentence."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import convsmith as cs
from convsmith.algebra import DepthwiseFirst, FitRequest, fit
from convsmith.blocks import parse_block
from convsmith.errors import at
from convsmith.kernels.spec import ConvSpec
from convsmith.registry import Registry


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and models saved with it are not gone
        return torch.jit.script(nn.Sequential(nn.Conv2d(3, 8, 3)))


def rolling_pointwise_of_other_channels() -> None:
    parse_block("dw-rpw:2,0.5").build(ConvSpec(8, 12)).pointwise(torch.zeros(1, 9, 4, 4))


MISTAKES: dict[str, tuple[type[cs.ConvsmithError], Callable[[Path], object]]] = {
    "TorchScript": (cs.CaptureError, lambda at: cs.capture(scripted(), torch.zeros(1, 3, 8, 8))),
    "no such file": (cs.FileError, lambda at: cs.capture_file(at / "net.onnx")),
    "no such folder": (cs.FileError, lambda at: cs.report(at / "run")),
    "a data set without its folder": (cs.DataError, lambda at: cs.load_data("cifar10")),
    "images of no shape": (cs.DataError, lambda at: cs.load_data("digits", input=(5, 8, 8))),
    "a method without data": (
        cs.DataError, lambda at: fit(DepthwiseFirst(1), torch.rand(6, 4, 9), FitRequest("gsvd"))
    ),
    "a tensor of another shape": (cs.ShapeError, lambda at: rolling_pointwise_of_other_channels()),
    "no such data set": (cs.UnknownNameError, lambda at: cs.load_data("digit")),
    "no such net": (cs.UnknownNameError, lambda at: cs.build("vgg17")),
    "no such block": (cs.UnknownNameError, lambda at: parse_block("dw-pv")),
    "no such method": (cs.UnknownNameError, lambda at: fit(DepthwiseFirst(1), torch.rand(6, 4, 9), FitRequest("svt"))),
    "an impossible parameter": (cs.ConvsmithError, lambda at: parse_block("dw-pw:0")),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_of_its_kind_and_told_in_one_line(mistake: str, tmp_path: Path) -> None:
    kind, make = MISTAKES[mistake]
    with pytest.raises(cs.ConvsmithError) as caught:
        make(tmp_path)
    assert type(caught.value) is kind
    assert len(str(caught.value).splitlines()) == 1
    assert not str(caught.value).startswith(("'", '"'))


@pytest.mark.parametrize("kind", [cs.ConvsmithError, cs.UnknownNameError])
def test_what_is_quoted_keeps_a_sentence_one_line_that_a_terminal_only_prints(kind: type[cs.ConvsmithError]) -> None:
    assert str(kind("'a\n b\x1b[31m\udc00\t': unknown; drop it.")) == "'a b [31m ': unknown; drop it."
    long = str(kind(f"'{'a' * 10**6}': unknown; drop it."))
    assert len(long) < 1000
    assert long.endswith("a': unknown; drop it.")


KINDS = [cs.BudgetError, cs.CaptureError, cs.DataError, cs.FileError, cs.PlanError, cs.ShapeError, cs.UnknownNameError]


@pytest.mark.parametrize("kind", KINDS)
def test_the_layer_is_said_and_the_kind_stays(kind: type[cs.ConvsmithError]) -> None:
    with pytest.raises(kind, match=r"^features\.3: It's off; mend it\.$"), at("features.3"):
        raise kind("It's off; mend it.")


def test_a_budget_is_a_matter_of_plans() -> None:
    assert issubclass(cs.BudgetError, cs.PlanError)


def test_a_table_is_asked_as_any_mapping_is() -> None:
    table = Registry[int]("color")
    with pytest.raises(KeyError):
        table["red"]
    assert table.get("red") is None
    assert table.get("red", 7) == 7
