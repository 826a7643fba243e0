"""Every block in every convolution's place that admits it, on nets of the zoo, torchvision and timm.

    python bench/blocks.py [NET ..]       # all nets, or these anew

Each net is planned with each block, rebuilt, and run on two small images; what the plan says of costs is held against
torch's counter, what it says of Quality against the reach found in the new net. Writes bench/results/blocks.json and
the table of docs/blocks.md.
"""

import json
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

import convsmith as cs
from convsmith.environment import environment
from convsmith.files import write_text
from convsmith.graph import Graph, Node
from convsmith.plan import Plan, Replace

ROOT = Path(__file__).parents[1]
RESULT, PAGE = ROOT / "bench" / "results" / "blocks.json", ROOT / "docs" / "blocks.md"


def _zoo(name: str) -> nn.Module:
    return cs.build(name, input=(3, 32, 32), classes=10)


NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    **{name: (partial(_zoo, name), 32) for name in ("vgg16", "resnet20", "mobilenetv2", "shufflenetv2-1.0")},
    **{
        name: (partial(models.get_model, name, weights=None), 96)
        for name in ("resnet18", "resnet50", "mobilenet_v3_small", "densenet121", "efficientnet_b0")
    },
    **{
        f"timm:{name}": (partial(timm.create_model, name), 96)
        for name in ("convnext_atto", "repvgg_a0", "regnety_002", "hrnet_w18_small")
    },
}
# What is asked for, the limit on MACs, and how weights are carried: `svd` in closed form, `none` where it takes long.
ASKED: tuple[tuple[str, float | None, str], ...] = (
    ("dw-pw", None, "svd"),
    ("pw-dw", None, "svd"),
    ("dw-gpw:g=4", None, "svd"),
    ("dw-rpw:g=4,o=0.5", None, "svd"),
    ("shuffle:g=2", None, "none"),
    ("ant", None, "none"),
    ("ant:g=2", None, "none"),
    ("address", None, "none"),
    ("dice", None, "none"),
    ("eca", None, "none"),
    ("se", None, "none"),
    ("cp:r=8", None, "none"),
    ("channel:r=8", None, "svd"),
    ("spatial:r=8", None, "svd"),
    ("tucker:r=8,s=8", None, "svd"),
    ("seq:dw,rpw(g=4,o=0.5),rpw(g=4,o=0.5)", None, "none"),
    ("seq:gpw(g=4),shuffle(g=4),gpw(g=4)", None, "none"),
    ("auto", None, "svd"),
    ("auto", 0.5, "none"),
    ("auto", 0.2, "none"),
)


@dataclass(frozen=True)
class Cell:
    """One block on one net: layers replaced, those that meet Quality alone and in a row, reasons to leave others."""

    net: str
    block: str
    limit: float | None
    outcome: str  # applied, refused (with the sentence), or failed (with the error)
    told: str = ""
    replaced: int = 0
    quality: int = 0
    in_a_row: int = 0
    refusals: dict[str, int] = field(default_factory=dict)
    macs: float = 1.0
    params: float = 1.0
    seconds: float = 0.0


def cell(net: str, block: str, limit: float | None, method: str) -> Cell:
    """Plan, apply, run, and check; a net or block that fails is what is looked for, so the run goes on."""
    build, side = NETS[net]
    torch.manual_seed(0)
    model = build().eval()
    shape = (3, side, side)
    began = process_time()
    try:
        graph = cs.capture(model, torch.zeros(1, *shape), name=net)
        plan = cs.decompose(graph, block=block, max_macs=limit)
        seconds = process_time() - began
        new = cs.apply(model, plan, method=method).eval()
        check(model, new, graph, plan, shape)
    except cs.ConvsmithError as error:
        return Cell(net, block, limit, "refused", str(error))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        told = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        return Cell(net, block, limit, "failed", told)
    edits = edits_of(plan)
    reasons: dict[str, int] = {}
    for refusal in plan.refusals:
        reasons[refusal.reason] = reasons.get(refusal.reason, 0) + 1
    return Cell(
        net, block, limit, "applied", "", len(edits), sum(e.quality for e in edits), sum(bool(e.window) for e in edits),
        reasons, round(plan.new.macs / plan.base.macs, 4), round(plan.new.params / plan.base.params, 4),
        round(seconds, 2),
    )  # fmt: skip


def edits_of(plan: Plan) -> list[Replace]:
    return [edit for edit in plan.edits if isinstance(edit, Replace)]


def check(model: nn.Module, new: nn.Module, graph: Graph, plan: Plan, shape: tuple[int, ...]) -> None:
    """Shapes and finite numbers, costs by torch's counter, and Quality by the reach in the new net."""
    x = torch.rand(2, *shape)
    with torch.no_grad():
        answer, before = new(x), model(x)
        with FlopCounterMode(display=False) as counter:
            new(x[:1])
    assert answer.shape == before.shape and answer.isfinite().all(), "the output is another or not finite"
    assert sum(p.numel() for p in new.parameters()) == plan.new.params, "other parameters than promised"
    assert counter.get_total_flops() // 2 == plan.new.macs, (
        f"{counter.get_total_flops() // 2} MACs, {plan.new.macs} told"
    )
    rebuilt = cs.capture(new, torch.zeros(1, *shape))
    for edit in edits_of(plan):
        assert edit.quality == alike(graph, rebuilt, edit.layer, edit.layer), f"Quality of {edit.layer} is told wrongly"
        if edit.window:
            assert alike(graph, rebuilt, edit.window[0], edit.window[-1]), f"the window of {edit.layer} is told wrongly"


def alike(graph: Graph, rebuilt: Graph, first: str, last: str) -> bool:
    """Whether the output of one layer sees of the input of another at least what it saw."""
    return seen(rebuilt, first, last) >= seen(graph, first, last)


def seen(graph: Graph, first: str, last: str) -> float:
    begin, end = inside(graph, first)[0], inside(graph, last)[-1]
    return graph.reaches(begin.call.input.name, [end.name])[end.name].extent().volume


def inside(graph: Graph, layer: str) -> list[Node]:
    return [node for node in graph.nodes if node.module == layer or node.module.startswith(f"{layer}.")]


def table(cells: list[dict[str, Any]]) -> str:
    """A line for each thing asked for, over all nets."""
    lines = ["| asked for | limit | nets | layers | sees as much | in a row | MACs, least to most | failed |"]
    lines.append("|---|---:|---:|---:|---:|---:|---|---:|")
    for block, limit, _ in ASKED:
        own = [c for c in cells if (c["block"], c["limit"]) == (block, limit)]
        done = [c for c in own if c["replaced"]]
        sums = [str(sum(c[name] for c in done)) for name in ("replaced", "quality", "in_a_row")]
        share = f"{min(c['macs'] for c in done):.3f} to {max(c['macs'] for c in done):.3f}" if done else ""
        failed = sum(c["outcome"] == "failed" for c in own)
        row = [f"`{block}`", f"{limit}x" if limit else "", f"{len(done)} of {len(own)}", *sums, share, str(failed)]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def main(nets: list[str]) -> None:
    """Renew the file and the table net by net; what other nets gave stays."""
    warnings.simplefilter("ignore")
    cells = json.loads(RESULT.read_text())["cells"] if RESULT.exists() else []
    for net in nets or NETS:
        found = [asdict(cell(net, *asked)) for asked in ASKED]
        for each in found:
            print(*(value for key, value in each.items() if key != "refusals"), flush=True)
        kept = {name: [c for c in cells if c["net"] == name] for name in NETS} | {net: found}
        cells = [each for own in kept.values() for each in own]
        write_text(RESULT, json.dumps({"what": __doc__, "cells": cells, **environment()}, indent=1) + "\n")
        before, _, rest = PAGE.read_text().partition("<!-- applied -->\n")
        write_text(PAGE, f"{before}<!-- applied -->\n{table(cells)}{rest[rest.index('<!-- /applied -->') :]}")


if __name__ == "__main__":
    main(sys.argv[1:])
