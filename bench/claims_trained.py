"""Claims that nets must be trained for: the cells of bench/gpu/run.py, on a GPU and as small forms on a CPU."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import mean
from typing import Any

from scipy.stats import kendalltau

from claim import HE, NOT_MEASURED, OURS, WANG, ZHONG, Found, Told, claim, points, share, verdict

SCRIPT = "bench/gpu/run.py"
SMALL = "bench/gpu/run.py --set small"
SEEDS = (0, 1, 2)
WITHIN = 1.0  # points that a recovered net may lack
TABLE2 = ("base", *(f"+1 in stage {number}" for number in range(1, 6)))
Cells = Mapping[str, Any]


def at(cells: Cells, table: str, row: str, seed: int) -> float | None:
    """Top-1 in percent of a cell, if it is there."""
    cell = cells.get(f"{table}/{row}/{seed}")
    return None if cell is None else 100 * float(cell["top1"])


def paired(cells: Cells, table: str, new: str, base: str) -> list[float]:
    """Points that a row has over another, a number for each seed that both were trained with."""
    pairs = [(at(cells, table, new, seed), at(cells, table, base, seed)) for seed in SEEDS]
    return [own - other for own, other in pairs if own is not None and other is not None]


def on(cells: Cells, keys: Sequence[str]) -> str:
    """Data, size and machine of the cells with these beginnings."""
    own = [cell for key, cell in cells.items() if key.startswith(tuple(keys))]
    told = [
        {cell["data"] for cell in own},
        {f"{cell['settings']['images']} training images" for cell in own if cell["settings"]["images"]},
        {f"{cell['settings']['width']:g} of the widths" for cell in own if cell["settings"]["width"] != 1},
        {f"{cell['settings']['recipe']['epochs']} epochs" for cell in own},
        {cell["machine"] for cell in own},
    ]
    return ", ".join(" or ".join(sorted(each)) for each in told if each)


def difference(new: str, base: str, table: str, printed: float, found: Found) -> Told:
    """A row over another."""
    cells = found["cells"]
    values = paired(cells, table, new, base)
    if not values:
        return NOT_MEASURED, f"the cells {table}/{new} and {table}/{base} are not done"
    told = f"{points(values)}; {on(cells, [f'{table}/{new}/', f'{table}/{base}/'])}"
    return verdict(values, printed), told


def trend(found: Found) -> Told:
    """Table 2: Kendall's tau of gain and accuracy over the six nets, and stages 1 and 2 against 4 and 5, by seed."""
    cells = found["cells"]
    done = [(row, seed) for seed in SEEDS for row in TABLE2 if at(cells, "table2", row, seed) is not None]
    whole = [seed for seed in SEEDS if all((row, seed) in done for row in TABLE2)]
    if not whole:
        return NOT_MEASURED, f"{len(done)} of {len(SEEDS) * len(TABLE2)} nets are trained, no seed is whole"
    early = [mean(_stages(cells, seed, (1, 2))) - mean(_stages(cells, seed, (4, 5))) for seed in whole]
    taus = [_tau(cells, seed) for seed in whole]
    told = f"stages 1 and 2 over 4 and 5: {points(early)}; Kendall of gain and accuracy {mean(taus):.2f}"
    return verdict(early, 0.0), f"{told}; {on(cells, ['table2/'])}"


def _stages(cells: Cells, seed: int, stages: Sequence[int]) -> list[float]:
    return [at(cells, "table2", f"+1 in stage {stage}", seed) or 0.0 for stage in stages]


def _tau(cells: Cells, seed: int) -> float:
    gains = [round(cells[f"table2/{row}/{seed}"]["gain"], 2) for row in TABLE2]
    return float(kendalltau(gains, [at(cells, "table2", row, seed) for row in TABLE2]).statistic)


def recovery(found: Found) -> Told:
    """The decomposed net after training, over the original trained alike."""
    own = [cell for key, cell in found["cells"].items() if key.startswith("recovery/")]
    if not own:
        return NOT_MEASURED, "the recovery cells are not done"
    values = [100 * (cell["top1"] - cell["control"]["top1"]) for cell in own]
    before = mean(100 * (cell["before"] - cell["base"]["top1"]) for cell in own)
    return verdict([value + WITHIN for value in values]), (
        f"{points(values)} against the control, {before:+.2f} before training; {on(found['cells'], ['recovery/'])}"
    )


def limits(found: Found) -> Told:
    """Rolling pointwise on a GPU against what memory and arithmetic allow."""
    own = [cell for key, cell in found["cells"].items() if key.startswith("rpw/")]
    if not own:
        return NOT_MEASURED, "the kernel cells are not done"
    ratios = sorted(cell["over_limit"] for cell in own)
    word, held, count = share(ratio <= 1.3 for ratio in ratios)
    told = f"{held} of {count} shapes; median {ratios[count // 2]:.2f}, most {ratios[-1]:.2f}"
    return word, f"{told}; {own[0]['machine']}"


def shifted(found: Found) -> Told:
    """The appended shift over the shuffle, alone, on large batches."""
    cells = found["cells"].items()
    own = [cell for key, cell in cells if key.startswith("shift/") and not cell["settings"]["behind"]]
    large = [1 / cell["times"]["append"]["ratio"] for cell in own if cell["settings"]["images"] > 1]
    if not large:
        return NOT_MEASURED, "the kernel cells are not done"
    word, held, count = share(ratio >= 12.7 for ratio in large)
    return word, f"{held} of {count} shapes; {min(large):.1f} to {max(large):.1f} times; {own[0]['machine']}"


def faster(found: Found) -> Told:
    """The tuned loop against the usual one."""
    own = {key.split("/")[1]: cell for key, cell in found["cells"].items() if key.startswith("speed/")}
    if not own:
        return NOT_MEASURED, "the speed cells are not done"
    least = {net: min(cell["ratio"].values()) for net, cell in own.items()}
    word, _, _ = share(ratio >= 2 for ratio in least.values())
    told = ", ".join(f"{net} {ratio:.1f} times" for net, ratio in least.items())
    return word, f"{told}; {next(iter(own.values()))['machine']}"


def both(text: str, judge: Callable[[Found], Told], source: str = WANG) -> None:
    """A claim for a GPU in full, and its small form on a CPU."""
    claim(text, source, SCRIPT, "gpu.json")(judge)
    claim(f"{text}, in small", source, SMALL, "small.json")(judge)


both("Table 2: the stages of VGG11 where a convolution more gains most are those where it helps most", trend)
for _net, _printed in {"vgg16": 0.31, "mobilenet": 1.38, "vgg19": 0.98, "resnet50": 2.04}.items():
    claim(f"Table 3: {_net} organized is {_printed} points better on CIFAR-10", WANG, SCRIPT, "gpu.json")(
        partial(difference, f"{_net} organized", f"{_net} base", "table3", _printed)
    )
for _groups, _printed in ((4, 3.54), (8, 3.78)):
    both(
        f"Table 6: at g = {_groups} rolling pointwise (o = .5) is {_printed} points above grouped pointwise",
        partial(difference, f"DW+RPW g={_groups} o=0.5", f"DW+GPW g={_groups}", "table6", _printed),
    )
for _net in ("shufflenetv2-1.0", "shufflenetv2-0.5", "mobilenet"):
    claim(f"{_net} expanded, trained and decomposed is 2 points above itself trained alike", HE, SCRIPT, "gpu.json")(
        partial(difference, f"{_net} expanded", f"{_net} base", "expand", 2.0)
    )
claim("Trained on, ResNet-20 of rank-2 separable kernels is within a point of its original trained alike", OURS,
      SCRIPT, "gpu.json")(recovery)  # fmt: skip
claim("Rolling pointwise takes at most 1.3 times what a GPU's memory and arithmetic allow", OURS, SCRIPT, "gpu.json")(
    limits
)
claim("The channel shift is 12.7 times as fast as the shuffle on a GPU", ZHONG, SCRIPT, "gpu.json")(shifted)
claim("The driver's training loop is twice as fast as the usual one", OURS, SCRIPT, "gpu.json")(faster)
