"""Sizes that files and options ask for: refused in a sentence, before anything of that size is made."""

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
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


class Made(nn.Module):
    """A net that makes what a function makes of its input."""

    def __init__(self, make: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.make, self.conv = make, nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Any:
        return self.conv(x), self.make(x)


ONE = torch.tensor([10**11])
# What forward makes of an input of 3x32x32, and what is told.
MADE: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "padded": (lambda x: F.pad(x, (0, 10**8)), "a tensor of 1x3x32x100000032"),
    "padded in one dimension": (lambda x: F.pad(x.flatten(2), (0, 10**8)), "a tensor of 1x3x100001024"),
    "resized": (lambda x: F.interpolate(x, scale_factor=30000.0), "a tensor of 1x3x960000x960000"),
    "repeated": (lambda x: x.repeat(1, 1, 10**5, 10**5), "a tensor of 1x3x3200000x3200000"),
    "channels": (lambda x: x.repeat(1, 10**7, 1, 1), "a tensor of 1x30000000x32x32"),
    "images": (lambda x: x.repeat(10**9, 1, 1, 1), "a tensor of 1000000000x3x32x32"),
    "a table": (lambda x: x + torch.zeros(10**5, 10**6)[0, 0], "more than 67,108,864 numbers with values"),
    "tables": (lambda x: x + sum(torch.ones(10**7).sum() for _ in range(10)), "more than 67,108,864 numbers"),
    "a grid": (lambda x: x + (torch.arange(10**5)[:, None] * torch.arange(10**5)).sum(), "by aten.mul"),
    "an expanded number": (lambda x: x + torch.ones(1).expand(10**10).clone().sum(), "more than 67,108,864 numbers"),
    "by values": (lambda x: x + torch.bincount(ONE).sum(), "by aten.bincount"),
    "by other values": (lambda x: x + torch.repeat_interleave(ONE).sum(), "by aten.repeat_interleave"),
    "on numbers": (lambda x: x + torch.ones(2**int(x.sum() * 0 + 40)), "by aten.ones"),
}  # fmt: skip


@pytest.mark.parametrize("case", MADE)
def test_what_a_forward_makes_without_a_bound_is_refused(case: str) -> None:
    make, told = MADE[case]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConvsmithError, match=f"^Made: .*{told}.*; give a smaller --input.$"):
        cs.capture(Made(make), torch.zeros(1, 3, 32, 32))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # kB


def test_a_net_is_not_run_on_the_numbers_of_a_large_input() -> None:
    """Where forward reads values of it; on shapes the same input is captured."""
    x = torch.empty(1, 3, 16384, 16384, device="meta")
    assert cs.capture(Made(lambda x: x + x.mean()), x).inputs[0].shape == (1, 3, 16384, 16384)
    with pytest.raises(ConvsmithError, match=r"^Made: its forward reads values.* at most 16,777,216; give a smaller"):
        cs.capture(Made(lambda x: x + x.mean().item()), x)


def test_tables_within_the_bound_keep_their_values() -> None:
    """Of a view, of what is written in place, and of what a call reads, nothing counts again."""
    table = torch.ones(1 << 23)

    def make(x: Tensor) -> Tensor:
        for _ in range(100):
            own = table.expand(4, -1).flatten()[: 1 << 10].exp_().neg()
        return x + own.max()

    assert cs.capture(Made(make), torch.zeros(1, 3, 32, 32)).shapes["add"] == (1, 3, 32, 32)


def test_analysis_makes_no_tensor_of_the_inputs_size() -> None:
    """All that a capture runs on is on the meta device, the input among it."""

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            sizes.extend(x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor) and x.device.type != "meta")
            return out

    sizes: list[int] = []
    loaded = load("resnet20", Wish(input=(3, 12000, 12000)))
    with Watched():
        graph = loaded.graph()
    assert graph.inputs[0].shape == (1, 3, 12000, 12000)
    assert max(sizes, default=0) < 10**6
