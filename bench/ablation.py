"""What each part of the fits is worth, without training: `python bench/ablation.py WEIGHTS --data cifar10:PATH`.

ResNet-20 (small form) under limits on MACs: one plan a limit by 512 images, fitted to three draws of as many, with the
parts of the fits added one after another:

- layers: in order, each layer to its own response, the ReLU counted where it stands right behind;
- sums: what goes into a sum is fitted to the original's sum without the shortcut as it is now;
- relus: the ReLU counts behind sums too; this is what `apply` does;
- joint: a joint refit of all weights in the end, `refit_steps=300`;
- judged: the same, of a plan that was judged and chosen anew (`judged=24`).

The rate and the steps were chosen on the first half of the test images; top-1 is on the second. One row a limit, part
and draw goes to bench/results/ablation.json; rows that are there are not made again. `--page` writes the page.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from time import process_time
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

import convsmith as cs
from convsmith.calibration.joins import Behind
from convsmith.data import Data
from convsmith.environment import environment
from convsmith.files import write_text
from convsmith.graph import Graph, Node
from convsmith.load import load_with_data

OUT = Path(__file__).parent / "results" / "ablation.json"
PAGE = Path(__file__).parents[1] / "docs" / "results" / "ablation.md"
NET, LIMITS, DRAWS = "resnet20", (0.27, 0.44), range(3)
STEPS, JUDGED, BATCH = 300, 24, 500


@dataclass(frozen=True)
class Part:
    """What is done with a plan: whether sums and the ReLUs behind them count, steps of a joint refit, plans judged."""

    name: str
    told: str
    sums: bool = True
    relus: bool = True
    steps: int = 0
    judged: int = 0


PARTS = (
    Part("layers", "each layer alone, in order", sums=False, relus=False),
    Part("sums", "+ sums with what the shortcut is now", relus=False),
    Part("relus", "+ ReLUs behind sums"),
    Part("joint", f"+ a joint refit, {STEPS} steps", steps=STEPS),
    Part("judged", f"+ the plan judged and chosen anew, {JUDGED} plans", steps=STEPS, judged=JUDGED),
)


@contextmanager
def only(part: Part) -> Iterator[None]:
    """Have fits see of sums and ReLUs what a part of the ablation allows."""
    of = Behind.of

    def seen(graph: Graph, node: Node) -> Behind:
        found = of(graph, node)
        if found.shortcut is None:
            return found
        return replace(found, shortcut=found.shortcut if part.sums else None, relu=found.relu and part.relus)

    with patch.object(Behind, "of", seen):
        yield


def top1(model: nn.Module, data: Data) -> float:
    """On the second half of the test images."""
    hits: list[float] = []
    with torch.no_grad():
        for number, (images, labels) in enumerate(data.test.batches(BATCH)):
            if number * BATCH >= len(data.test) // 2:
                hits += (model(images).argmax(1) == labels).float().tolist()
    return mean(hits)


def rows(model: nn.Module, data: Data, limit: float, prices: Path | None, parts: Sequence[Part]) -> Iterator[Any]:
    """What is missing under one limit, a draw at a time."""
    plans: dict[int, cs.Plan] = {}
    graph = cs.capture(model, torch.zeros(1, 3, 32, 32))
    for draw in DRAWS:
        for part in (part for part in parts if not measured(limit, part.name, draw)):
            if part.judged not in plans:
                plans[part.judged] = cs.decompose(
                    graph, model=model, data=data, max_macs=limit, prices=prices, judged=part.judged
                )
            plan, start = plans[part.judged], process_time()
            with only(part):
                made = cs.rewrite(model, plan, data=data, seed=draw, refit_steps=part.steps)
            spent = process_time() - start
            yield {
                "limit": limit, "part": part.name, "draw": draw, "macs": plan.new.macs / plan.base.macs,
                "top1": top1(made.model.eval(), data), "processor_s": spent,
                "refit": None if made.refit is None else vars(made.refit),
            }  # fmt: skip


def lost(found: Mapping[str, Any], limit: float, part: str) -> list[float]:
    """Points lost by each draw that was measured."""
    own = [row for row in found["rows"] if (row["limit"], row["part"]) == (limit, part)]
    return [100 * (found["original"] - row["top1"]) for row in sorted(own, key=lambda row: row["draw"])]


def told(values: Sequence[float]) -> str:
    """Their mean, spread and number."""
    if not values:
        return "not measured"
    spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):.2f}{spread} ({len(values)})"


def page(found: Mapping[str, Any]) -> str:
    """The page of the documentation: a row a part, points lost under each limit."""
    lines = [
        "# What each part of the fits is worth",
        "",
        f"{NET} trained on CIFAR-10 (JPEG copies), decomposed with 512 images and not trained: points of top-1 lost,",
        "mean and deviation of draws of the images (how many in brackets). Each row adds to the one above it. Rate and",
        "steps of the joint refit were chosen on the first 5,000 test copies; these are the other 5,000, where the net",
        f"has {100 * found['original']:.2f} %.",
        "",
        f"| fits | {' | '.join(f'{limit}x MACs' for limit in LIMITS)} | processor time |",
        f"|---|{'---|' * len(LIMITS)}---|",
    ]
    for part in PARTS:
        seconds = [row["processor_s"] for row in found["rows"] if row["part"] == part.name]
        span = f"{min(seconds):.0f} to {max(seconds):.0f} s" if seconds else ""
        cells = " | ".join(told(lost(found, limit, part.name)) for limit in LIMITS)
        lines.append(f"| {part.told} | {cells} | {span} |")
    lines += ["", f"- {found['weights']}."] if found["weights"] else []
    lines.append(f"- {found['hardware']['cpu']}, one thread; planning is not counted.")
    return "\n".join(lines) + "\n"


def read() -> dict[str, Any]:
    """What was measured so far."""
    return json.loads(OUT.read_text()) if OUT.is_file() else {"rows": [], "weights": ""}


def keep(**more: Any) -> None:
    """Write what is new; another process may measure the other limit meanwhile."""
    known = read()
    known["rows"] += more.pop("rows", [])
    write_text(OUT, json.dumps({"what": __doc__, **known, **environment(), **more}, indent=1) + "\n")


def measured(limit: float, part: str, draw: int) -> bool:
    """Whether a row is there."""
    return any((row["limit"], row["part"], row["draw"]) == (limit, part, draw) for row in read()["rows"])


def main() -> None:
    """Make the rows that are missing, and write the file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="?", type=Path)
    parser.add_argument("--data", default="")
    parser.add_argument("--limit", type=float, action="append", help="of these limits alone")
    parser.add_argument("--part", choices=[part.name for part in PARTS], action="append", help="these parts alone")
    parser.add_argument("--prices", type=Path, help="keeps what planning worked out, for calls that go on")
    parser.add_argument("--note", default="", help="where the weights come from")
    parser.add_argument("--page", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.weights is not None:
        loaded, data = load_with_data(NET, given.data, weights=given.weights)
        model = loaded.model.eval()
        parts = [part for part in PARTS if part.name in (given.part or [part.name])]
        if "original" not in read():
            keep(original=top1(model, data), weights=given.note)
        for limit in given.limit or LIMITS:
            for row in rows(model, data, limit, given.prices, parts):
                keep(rows=[row])
    if given.page:
        write_text(PAGE, page(read()))


if __name__ == "__main__":
    main()
