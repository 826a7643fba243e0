"""The tables and curves of docs/results/decomposition.md from bench/results: `python bench/decompose_page.py`.

Needs matplotlib for the curves, docs/results/decomposition.svg.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from convsmith.files import write_text

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench" / "results" / "decompose.json"
EPOCHS = ROOT / "bench" / "results" / "epochs.json"
PAGE, FIGURE = ROOT / "docs" / "results" / "decomposition.md", ROOT / "docs" / "results" / "decomposition.svg"
NETS = {"resnet20": "ResNet-20", "resnet56": "ResNet-56"}
# What is drawn, by name and by whom and how: the best first.
LINES = {
    "budget": ("convsmith", "budget als in order relu"),
    "cp": ("convsmith", "cp als in order relu"),
    "cp, no refit": ("convsmith", "cp als in order"),
    "dw-pw": ("convsmith", "dw-pw als in order relu"),
    "dw-pw, svd": ("convsmith", "dw-pw svd"),
    "tensorly-torch CP": ("tensorly-torch", "cp"),
    "tensorly-torch Tucker": ("tensorly-torch", "tucker"),
    "fasterai Tucker": ("fasterai", "tucker"),
    "fasterai SVD": ("fasterai", "svd"),
}
COMPARED = ("budget", "cp", "cp, no refit", "tensorly-torch CP")
Point = dict[str, Any]


def read_points() -> list[Point]:
    """Every job of the result file."""
    return [point for name, point in json.loads(RESULT.read_text())["points"].items() if name != "baseline"]


def groups(points: Iterable[Point], net: str, who: str, how: str) -> dict[float, list[Point]]:
    """The draws of one method by setting, in order of cost."""
    own = [p for p in points if (p["net"], p["who"], p["how"]) == (net, who, how)]
    return {s: [p for p in own if p["setting"] == s] for s in sorted({p["setting"] for p in own})}


def accuracy(draws: list[Point]) -> str:
    """Mean top-1, with two standard errors where there are several draws."""
    top1 = [point["top1"] for point in draws]
    if len(top1) < 2:
        return f"{top1[0]:.4f}"
    return f"{mean(top1):.4f} ± {2 * stdev(top1) / len(top1) ** 0.5:.4f}"


def compared(points: list[Point], net: str) -> Iterator[list[str]]:
    """A row for each share asked for: MACs and top-1 of the strongest methods, and of the peer with its norms anew."""
    head = [cell for name in COMPARED for cell in (f"{name}: MACs", "top-1")]
    yield ["share asked for", *head, "with norms anew"]
    found = [groups(points, net, *LINES[name]) for name in COMPARED]
    for share in sorted(set().union(*found)):
        cells = []
        for own in found:
            draws = own.get(share)
            cells += [f"{mean(p['macs'] for p in draws):.3f}", accuracy(draws)] if draws else ["", ""]
        peer = found[-1].get(share)
        yield [f"{share}", *cells, f"{peer[0]['top1_norms']:.4f}" if peer else ""]


def every(points: list[Point], net: str) -> Iterator[list[str]]:
    """A row for each method: MACs and top-1 at every setting, and behind a slash with norms anew where that is kept."""
    yield ["who", "form and method", "MACs: top-1"]
    for who, how in sorted({(p["who"], p["how"]) for p in points if p["net"] == net}):
        if (who, how) not in [LINES[name] for name in COMPARED]:
            told = [
                f"{draws[0]['macs']:.2f}: {draws[0]['top1']:.3f}"
                + (f" / {draws[0]['top1_norms']:.3f}" if draws[0]["norms_kept"] else "")
                for draws in groups(points, net, who, how).values()
            ]
            yield [who, how, ", ".join(told)]


def epochs(points: Iterable[Point]) -> Iterator[list[str]]:
    """A row for each net trained: top-1 before training, and after each number of epochs by learning rate."""
    yield ["net", "method", "MACs", "before", "with norms anew", "after 1 epoch, at rate", "after 3 epochs, at rate"]
    runs = sorted(points, key=lambda p: (p["net"], p["macs"], p["who"], p["how"], p["lr"]))
    for _, group in groupby(runs, key=lambda p: (p["net"], p["macs"], p["who"], p["how"])):
        rates = list(group)
        after = [", ".join(f"{p['epochs'][n]:.4f} at {p['lr']}" for p in rates if n in p["epochs"]) for n in ("1", "3")]
        # a peer that starts from random factors is another net in every run
        scores = [", ".join(dict.fromkeys(f"{p[key]:.4f}" for p in rates)) for key in ("top1", "top1_norms")]
        p = rates[0]
        yield [NETS[p["net"]], f"{p['who']} {p['how']}", f"{p['macs']:.3f}", *scores, *after]


def table(rows: Iterable[list[str]]) -> str:
    """Rows in Markdown, the first as the head."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def tables(points: list[Point]) -> dict[str, str]:
    """The page's tables by their marks."""
    made = {}
    for net in NETS:
        made[net], made[f"{net} others"] = table(compared(points, net)), table(every(points, net))
    return made | {"epochs": table(epochs(json.loads(EPOCHS.read_text())["points"].values()))}


def draw(points: list[Point], baseline: dict[str, float]) -> None:
    """Top-1 against MACs, a panel for each net."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "convsmith", "svg.fonttype": "none", "font.size": 9})
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(NETS), figsize=(10, 4.2), sharey=True, layout="constrained")
    for panel, (net, title) in zip(panels, NETS.items(), strict=True):
        panel.axhline(baseline[net], color="0.6", linewidth=0.8)
        for name, (who, how) in LINES.items():
            own = list(groups(points, net, who, how).values())
            ours = who == "convsmith"
            panel.plot(
                [mean(p["macs"] for p in draws) for draws in own], [mean(p["top1"] for p in draws) for draws in own],
                marker="o" if ours else "s", markersize=3.5, linestyle="-" if ours else "--", label=name,
            )  # fmt: skip
        panel.set(title=title, xlabel="MACs, share of the net's", xlim=(0.1, 0.95), ylim=(0.05, 0.88))
        panel.grid(alpha=0.25)
    panels[0].set_ylabel("top-1 before any training")
    panels[-1].legend(loc="lower right", fontsize=8)
    figure.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    points, page = read_points(), PAGE.read_text()
    for mark, made in tables(points).items():
        before, _, rest = page.partition(f"<!-- {mark} -->\n")
        page = f"{before}<!-- {mark} -->\n{made}{rest[rest.index(f'<!-- /{mark} -->') :]}"
    write_text(PAGE, page)
    draw(points, json.loads(RESULT.read_text())["points"]["baseline"])


if __name__ == "__main__":
    main()
