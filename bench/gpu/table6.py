"""VGG16 of (4, 3, 2, 3, 1) convolutions a stage with every block of the published comparison, trained alike.

    python bench/gpu/table6.py --data cifar10:PATH [--rows NAME ..] [--seeds 0 1 2] [--epochs 30] [--minutes 8.5]
    python bench/gpu/table6.py --data digits --epochs 4 --seeds 0      # minutes on a CPU

Wang et al., CIKM 2021, Table 6: does rolling pointwise keep what grouped pointwise loses, at equal cost? Every row
starts from fresh weights of its seed and has the same recipe. A run stops at the end of an epoch once `--minutes` are
over, and the same command goes on from there; finished rows are kept. Writes bench/results/table6.json and .html, or
for the digits table6_small.json and .html and the table of docs/blocks.md.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter
from typing import Any

import plotly.graph_objects as go
import torch

import convsmith as cs
from convsmith.data import Data
from convsmith.environment import environment
from convsmith.files import write_text
from convsmith.train import Epoch, recipe_for

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "blocks.md"
ROWS = {
    "3x3": None,
    "DW+PW": "dw-pw",
    **{f"DW+GPW g={g}": f"dw-gpw:g={g}" for g in (2, 4, 8)},
    **{f"DW+RPW g={g} o={o}": f"dw-rpw:g={g},o={o}" for g in (2, 4, 8) for o in (0.33, 0.5)},
}
BLOCKS = (4, 3, 2, 3, 1)


class LateError(Exception):
    """The time is over; the epoch is in the checkpoint."""


def trained(row: str, seed: int, data: Data, epochs: int, end: float, folder: Path) -> dict[str, Any]:
    """One net from fresh weights: its cost, and its accuracy after each epoch."""
    torch.manual_seed(seed)
    model = cs.build("vgg16", input=data.shape, classes=len(data.classes), blocks_per_stage=BLOCKS)
    block = ROWS[row]
    if block is not None:
        plan = cs.decompose(cs.capture(model, torch.zeros(1, *data.shape), name="vgg16"), block=block)
        model = cs.apply(model, plan, method="none")
    graph = cs.capture(model, torch.zeros(1, *data.shape), name=row)

    def check(epoch: Epoch) -> None:
        print(f"{row}, seed {seed}, epoch {epoch.epoch}: {epoch.test_top1:.4f}, {epoch.seconds:.0f} s", flush=True)
        if perf_counter() > end and epoch.epoch < epochs:
            raise LateError

    history = cs.train(model, data, recipe_for(data, epochs=epochs, seed=seed), out=folder, progress=check)
    return {
        "row": row, "seed": seed, "epochs": epochs, "macs": graph.macs,
        "params": sum(each.numel() for each in model.parameters()),
        "top1": [epoch.test_top1 for epoch in history.epochs], "seconds": sum(e.seconds for e in history.epochs),
    }  # fmt: skip


def table(runs: list[dict[str, Any]]) -> list[list[str]]:
    """A line for each row that was run: cost, mean accuracy and its deviation, and over how many seeds."""
    lines = []
    for row in ROWS:
        own = [run for run in runs if run["row"] == row]
        if own:
            final = [100 * run["top1"][-1] for run in own]
            spread = f"{stdev(final):.2f}" if len(final) > 1 else ""
            cost = [f"{own[0]['macs'] / 1e6:.1f}", f"{own[0]['params'] / 1e6:.2f}"]
            lines.append([row, *cost, f"{mean(final):.2f}", spread, str(len(final))])
    return lines


def write_page(runs: list[dict[str, Any]]) -> None:
    """Renew the table of the page."""
    lines = [["block", "MMACs", "M parameters", "top-1 %", "deviation", "seeds"], ["---", *["---:"] * 5], *table(runs)]
    rows = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    before, _, rest = PAGE.read_text().partition("<!-- table6 -->\n")
    write_text(PAGE, f"{before}<!-- table6 -->\n{rows}{rest[rest.index('<!-- /table6 -->') :]}")


def plot(runs: list[dict[str, Any]], path: Path) -> None:
    """Accuracy against MACs, a mark for each kind of block."""
    figure = go.Figure(layout={"xaxis": {"title": "MMACs", "type": "log"}, "yaxis": {"title": "top-1 %"}})
    lines = table(runs)
    for kind in dict.fromkeys(line[0].split()[0] for line in lines):
        own = [line for line in lines if line[0].split()[0] == kind]
        figure.add_scatter(
            x=[float(line[1]) for line in own], y=[float(line[3]) for line in own], text=[line[0] for line in own],
            error_y={"array": [float(line[4] or 0) for line in own]}, mode="markers", name=kind,
        )  # fmt: skip
    write_text(path, figure.to_html(include_plotlyjs="cdn"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=ROWS)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--checkpoints", type=Path, default=Path("runs/table6"))
    told = parser.parse_args()
    small = told.data == "digits"
    result = ROOT / "bench" / "results" / ("table6_small.json" if small else "table6.json")
    runs = json.loads(result.read_text())["runs"] if result.exists() else []
    done = {(run["row"], run["seed"], run["epochs"]) for run in runs}
    data, end = cs.load_data(told.data), perf_counter() + 60 * told.minutes
    for seed in told.seeds:
        for row in told.rows:
            if (row, seed, told.epochs) in done:
                continue
            if perf_counter() > end:
                return
            folder = told.checkpoints / f"{row}-{seed}-{told.epochs}".replace(" ", "-")
            try:
                runs.append(trained(row, seed, data, told.epochs, end, folder))
            except LateError:
                return
            recipe = asdict(recipe_for(data, epochs=told.epochs))
            kept = {"what": __doc__, "data": data.name, "recipe": recipe, "runs": runs, **environment()}
            write_text(result, json.dumps(kept, indent=1))
            plot(runs, result.with_suffix(".html"))
            if small:
                write_page(runs)


if __name__ == "__main__":
    main()
