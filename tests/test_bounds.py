"""Sizes that files and options ask for: refused in a sentence, before anything of that size is made."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import convsmith as cs
from convsmith.errors import ConvsmithError
from convsmith.load import Wish, load
from convsmith.plan import Plan


def planned(change: Callable[[dict[str, Any]], Any]) -> None:
    graph = cs.capture(cs.build("resnet20"), torch.zeros(1, 3, 32, 32))
    record = json.loads(cs.organize(graph, cs.score(graph), blocks=10).to_json())
    change(record)
    Plan.from_json(json.dumps(record), "plan.json")


def folder(path: Path, **changes: Any) -> None:
    from convsmith.load import read_origin, save

    save(load("resnet20"), path)
    record = json.loads((path / "model.json").read_text())
    (path / "model.json").write_text(json.dumps(record | changes))
    read_origin(path)


LARGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "image": (lambda p: load("resnet20", Wish(input=(3, 50000, 50000))), "3x50000x50000 is too large"),
    "side": (lambda p: load("torchvision:resnet18", Wish(input=(3, 2, 10**9))), "sides of at most"),
    "overflow": (lambda p: load("timm:resnet18", Wish(input=(3, 2**62, 2**62))), "is too large"),
    "channels": (lambda p: load("resnet20", Wish(input=(10**6, 32, 32))), "too many channels"),
    "classes": (lambda p: load("resnet50", Wish(classes=10**12)), "classes: got 1,000,000,000,000"),
    "classes of another": (lambda p: load("torchvision:resnet18", Wish(classes=10**8)), "classes: got 100,000,000"),
    "built": (lambda p: cs.build("vgg16", classes=10**9), "vgg16: classes: got 1,000,000,000"),
    "built large": (lambda p: cs.build("vgg16", input=(3, 10**9, 10**9)), "vgg16: input: 3x1000000000"),
    "depths": (lambda p: load("resnet20", Wish(blocks_per_stage=(3, 3, 10**7))), "blocks per stage: got 10,000,000"),
    "plan's input": (lambda p: planned(lambda r: r.update(input=[3, 10**9, 10**9])), "plan.json: the plan's input"),
    "plan's copies": (lambda p: planned(lambda r: r["edits"][0].update(copies=200000)), "copies of .*: got 200,000"),
    "folder's input": (lambda p: folder(p / "net", input=[3, 99999, 99999]), "3x99999x99999 is too large"),
    "folder's classes": (lambda p: folder(p / "net", classes=10**9), "classes: got 1,000,000,000"),
}  # fmt: skip


@pytest.mark.parametrize("case", LARGE)
def test_sizes_without_a_bound_are_refused(tmp_path: Path, case: str) -> None:
    make, told = LARGE[case]
    with pytest.raises(ConvsmithError, match=told) as error:
        make(tmp_path)
    assert "\n" not in str(error.value)


def test_analysis_makes_no_tensor_of_the_inputs_size() -> None:
    """All that a capture runs on is on the meta device, the input among it."""

    class Made(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            sizes.extend(x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor) and x.device.type != "meta")
            return out

    sizes: list[int] = []
    loaded = load("resnet20", Wish(input=(3, 12000, 12000)))
    with Made():
        graph = loaded.graph()
    assert graph.inputs[0].shape == (1, 3, 12000, 12000)
    assert max(sizes, default=0) < 10**6
