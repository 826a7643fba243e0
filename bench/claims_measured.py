"""Claims that need no training, or whose result files stand by themselves."""

from collections.abc import Iterator
from itertools import pairwise
from statistics import mean, stdev
from typing import Any

from claim import HE, IN_PART, NOT_MEASURED, OURS, WANG, ZHONG, Found, Told, claim, share, where


@claim("All printed gains follow from the formula (within .01)", WANG, "bench/published.py", "published.json")
def _gains(found: Found) -> Told:
    apart = [abs(row["gain"] - row["printed"]) for row in found["gains"]]
    word, held, count = share(each <= 0.01 for each in apart)
    return word, f"{held} of {count}, at most {max(apart):.4f} apart; exact arithmetic"


@claim("The printed sizes of the nets, CIFAR and ImageNet", WANG, "bench/published.py", "published.json")
def _sizes(found: Found) -> Told:
    word, held, count = share(f"{row['params'] / 1e6:.2f}" == f"{row['printed']:.2f}" for row in found["sizes"])
    return word, f"{held} of {count} to the last digit; exact arithmetic"


@claim("The organizer finds the printed structures", WANG, "bench/published.py", "published.json")
def _structures(found: Found) -> Told:
    rows = found["structures"]
    word, held, count = share(row["organized"] == row["printed"] for row in rows)
    others = ", ".join(f"{row['net']} on {row['input']}" for row in rows if row["organized"] != row["printed"])
    return word, f"{held} of {count}; not {others}; exact arithmetic"


@claim("Table 4: accuracies of organized nets on CIFAR-100", WANG)
def _cifar100(found: Found) -> Told:
    return NOT_MEASURED, "no data here"


@claim("Accuracies of organized nets on ImageNet", WANG)
def _imagenet(found: Found) -> Told:
    return NOT_MEASURED, "no data here"


@claim("Rolling pointwise is about as fast as grouped pointwise (at most 1.2 times), on a CPU", WANG, "bench/rpw.py",
       "rpw.json")  # fmt: skip
def _rolling(found: Found) -> Told:
    ratios = sorted(cell["times"]["rolling"]["ratio"] for cell in found["cells"])
    word, held, count = share(ratio <= 1.2 for ratio in ratios)
    return word, f"{held} of {count} shapes; median {ratios[count // 2]:.2f}, most {ratios[-1]:.2f}; {where(found)}"


@claim("The channel shift is 12.7 times as fast as the shuffle, here on a CPU, batches of 32", ZHONG, "bench/shift.py",
       "shift.json")  # fmt: skip
def _shift(found: Found) -> Told:
    own = {kind: [1 / _ratio(cell) for cell in found["cells"] if cell["images"] > 1 and cell["behind"] is kind]
           for kind in (False, True)}  # fmt: skip
    _, held, count = share(each >= 12.7 for each in own[False])
    alone, behind = (f"{min(own[kind]):.2f} to {max(own[kind]):.2f}" for kind in (False, True))
    told = f"alone {alone} times ({held} of {count} shapes), with the grouped convolution behind it {behind} times"
    return IN_PART, f"{told}; {where(found)}"


def _ratio(cell: Any) -> float:
    return float(next(time["ratio"] for time in cell["times"] if time["model"] == "append"))


def _draws(found: Found, net: str, how: str, who: str = "convsmith") -> dict[float, list[Any]]:
    points = [point for key, point in found["points"].items() if key != "baseline"]
    own = [point for point in points if (point["net"], point["who"], point["how"]) == (net, who, how)]
    return {setting: [p for p in own if p["setting"] == setting] for setting in {p["setting"] for p in own}}


def _tops(found: Found, how: str) -> dict[tuple[str, float], float]:
    return {
        (net, setting): draws[0]["top1"]
        for net in ("resnet20", "resnet56")
        for setting, draws in _draws(found, net, how).items()
    }


@claim("Depth-wise decomposition with data (generalized SVD) keeps more than without (SVD)", HE, "bench/decompose.py",
       "decompose.json")  # fmt: skip
def _gsvd(found: Found) -> Told:
    return _above(found, "dw-pw gsvd", "dw-pw svd")


@claim("Compensating for what layers before have lost keeps more than the generalized SVD alone", HE,
       "bench/decompose.py", "decompose.json")  # fmt: skip
def _compensated(found: Found) -> Told:
    return _above(found, "dw-pw compensated", "dw-pw gsvd")


def _above(found: Found, new: str, old: str) -> Told:
    own, other = _tops(found, new), _tops(found, old)
    word, held, count = share(own[key] > other[key] for key in own)
    gains = [100 * (own[key] - other[key]) for key in own]
    told = f"{held} of {count} ranks of ResNet-20 and -56, {min(gains):+.1f} to {max(gains):+.1f} points, one draw"
    return word, f"{told}; CIFAR-10 (JPEG copies), {where(found)}"


@claim("At no more MACs, budgets keep more than tensorly-torch's CP, before training, norms anew", OURS,
       "bench/decompose.py", "decompose.json")  # fmt: skip
def _budget(found: Found) -> Told:
    word, held, count = share(_beats(found))
    return word, f"{held} of {count} shares of ResNet-20 and -56; CIFAR-10 (JPEG copies), {where(found)}"


def _beats(found: Found) -> Iterator[bool]:
    """For every point of the peer, whether the dearest of ours that costs no more lies two standard errors above it."""
    for net in ("resnet20", "resnet56"):
        ours = list(_draws(found, net, "budget als in order relu").values())
        for (peer,) in _draws(found, net, "cp", "tensorly-torch").values():
            cheaper = [draws for draws in ours if mean(p["macs"] for p in draws) <= peer["macs"]]
            top1 = [p["top1"] for p in max(cheaper, key=lambda draws: mean(p["macs"] for p in draws))]
            error = 2 * stdev(top1) / len(top1) ** 0.5 if len(top1) > 1 else 0.0
            yield mean(top1) - error > peer["top1_norms"]


@claim("On made-up inputs `als` leaves the least error of the methods for `dw-pw`", OURS, "bench/decompose_table.py",
       "decompose_table.json")  # fmt: skip
def _als(found: Found) -> Told:
    errors = {name: {kind: mean(own[kind]) for kind in found["kinds"]} for name, own in found["held_out_error"].items()}
    others = ("dw-pw svd", "dw-pw gsvd", "dw-pw compensated")
    least = {kind: min(errors[name][kind] for name in others) for kind in found["kinds"]}
    word, held, count = share(errors["dw-pw als"][kind] <= 1.005 * least[kind] for kind in found["kinds"])
    return word, f"least, or within .5 %, on {held} of {count} kinds of input, {len(found['seeds'])} seeds"


@claim("A teacher helps a decomposed net to recover", OURS, "bench/recovery.py", "recovery.json")
def _teacher(found: Found) -> Told:
    last = {(run["lr"], run["teacher"]): 100 * run["top1"][-1] for run in found["recovered"]}
    gains = [last[lr, True] - last[lr, False] for lr, taught in last if not taught]
    told = f"{min(gains):+.1f} to {max(gains):+.1f} points after 2 epochs at {len(gains)} rates, one seed"
    return IN_PART if min(gains) > 0 else share([False])[0], f"{told}; ResNet-20, CIFAR-10 (JPEG), {where(found)}"


@claim("A net that kept most of its accuracy wants a small learning rate", OURS, "bench/epochs.py", "epochs.json")
def _rates(found: Found) -> Told:
    own = {point["lr"]: 100 * point["epochs"]["1"] for point in found["points"].values()
           if (point["net"], point["how"], point["setting"], point["who"])
           == ("resnet20", "cp als in order", 0.27, "convsmith") and "1" in point["epochs"]}  # fmt: skip
    rates = sorted(own)
    falls = all(own[low] > own[high] for low, high in pairwise(rates))
    told = ", ".join(f"{own[rate]:.1f} % at {rate:g}" for rate in rates)
    word = IN_PART if falls else share([False])[0]  # one net and one seed say no more
    return word, f"after one epoch {told}; one net, one seed, CIFAR-10 (JPEG), {where(found)}"


@claim("Value ranks 6,561 trained nets: Kendall at least .72 and regret at most .40 points on a half not fitted",
       OURS, "bench/metric.py", "metric.json")  # fmt: skip
def _value(found: Found) -> Told:
    other = [half["other half, the product's"] for half in found["halves"]]
    word, held, count = share(one["kendall"] >= 0.72 and one["regret"] <= 0.40 for one in other)
    kendall, regret = ([one[key] for one in other] for key in ("kendall", "regret"))
    told = f"{held} of {count} halves; Kendall {min(kendall):.3f} to {max(kendall):.3f}"
    return word, f"{told}, regret {min(regret):.2f} to {max(regret):.2f}; NAS-Bench-Macro, CIFAR-10, three runs a net"


@claim("By value as by gain, the organizer finds the same structures where nothing limits it", OURS, "bench/metric.py",
       "metric.json")  # fmt: skip
def _same(found: Found) -> Told:
    free = [row for row in found["optima"] if row["MACs"] is None]
    word, held, count = share(row["by gain"] == row["by value"] for row in free)
    others = ", ".join(f"{row['net']} on {row['input']}" for row in free if row["by gain"] != row["by value"])
    return word, f"{held} of {count} nets and inputs{'; not ' + others if others else ''}; exact arithmetic"


@claim("Value ranks nets whose widths vary, better than MACs do", OURS, "bench/metric.py", "metric.json")
def _regnets(found: Found) -> Told:
    own = found["regnets"]["kendall"]
    told = f"Kendall {own['value']:.2f}, of MACs {own['macs']:.2f}, over {len(found['regnets']['nets'])} RegNets"
    return share([own["value"] > own["macs"]])[0], f"{told}, ImageNet accuracies of torchvision"


@claim("A net is captured and scored in under 10 ms", OURS, "bench/metric.py", "metric.json")
def _ms(found: Found) -> Told:
    capture, score = (found["ms"][part]["processor median"] for part in ("capture", "score"))
    word, _, _ = share((score < 10, capture + score < 10))
    return word, f"scored in {score:.1f} ms, captured in {capture:.1f} ms of processor time; {where(found)}"


@claim("MACs are torch's own, on every convolutional net of timm and torchvision", OURS, "bench/coverage.py",
       "coverage.json")  # fmt: skip
def _coverage(found: Found) -> Told:
    totals = found["totals"]
    word, held, count = share(net["macs"] == net["counter_macs"] for net in found["nets"])
    told = f"{held} of {count} nets, {totals['refused'] + totals['failed']} refused or failed"
    return word, f"{told}, {totals['without unknown ops']} without an unknown op"


@claim("MACs are those that torchvision states of its classifiers", OURS, "bench/counts.py", "counts.json")
def _counts(found: Found) -> Told:
    counted = [row for row in found["nets"] if row["macs"] is not None]
    word, held, count = share(abs(row["macs"] / 1e9 - row["stated"]) <= 0.00051 for row in counted)
    told = f"{held} of {count} nets to the last of three digits of 1e9"
    others = len(found["nets"]) - count
    return word, f"{told}{f', {others} not counted' if others else ''}; torchvision {found['versions']['torchvision']}"


@claim("Every block applies to every net that admits it, or is refused with a reason", OURS, "bench/blocks.py",
       "blocks.json")  # fmt: skip
def _blocks(found: Found) -> Told:
    word, held, count = share(cell["outcome"] in ("applied", "refused") for cell in found["cells"])
    applied = sum(cell["outcome"] == "applied" for cell in found["cells"])
    return word, f"{held} of {count}: {applied} applied, {held - applied} refused; 13 nets"


@claim("Analysis with exact reach takes no longer than counting with other tools", OURS, "bench/analyze.py",
       "analyze.json")  # fmt: skip
def _analysis(found: Found) -> Told:
    counters = ("fvcore", "ptflops", "torchinfo", "calflops")
    ratios = {name: [net["times_ours"]["cold_s"][name] for net in found["nets"].values()] for name in counters}
    word, held, count = share(ratio >= 1 for own in ratios.values() for ratio in own)
    told = "; ".join(f"{name} {min(own):.1f} to {max(own):.1f} times ours" for name, own in ratios.items())
    return word, f"{held} of {count}: {told}; {len(found['nets'])} nets, first call, {where(found)}"


@claim("The widest window is that of rfa_toolbox", OURS, "bench/unproductive.py", "unproductive.json")
def _windows(found: Found) -> Told:
    rows = found["rows"]
    word, held, count = share(row["widest convolution window"] == row["their widest window"] for row in rows)
    nets = sorted({row["net"] for row in rows if row["widest convolution window"] != row["their widest window"]})
    return word, f"{held} of {count} nets and inputs{'; not ' + ', '.join(nets) if nets else ''}"


@claim("Fitting all sixteen 3x3 convolutions of ResNet-50 to 512 images takes under 5 forward passes of these", OURS,
       "bench/fit_speed.py", "fit_speed.json")  # fmt: skip
def _fits(found: Found) -> Told:
    own = found["seconds and megabytes"]["als"]
    passes = own["forward passes, processor"]
    word = share([passes < 5])[0]
    return word, f"{passes:.1f} passes of processor time; {own['threads']} thread, {where(found)}"


@claim("Of two processes on a CPU the busier has at least a fifth less to do than one alone", OURS, "bench/scale.py",
       "scale.json")  # fmt: skip
def _two_processes(found: Found) -> Told:
    word = share(found["one_by_two"][name][1] >= 1.25 for name in found["one_by_two"])[0]
    told = ", ".join(
        f"{name} {1 / middle:.2f} ({1 / most:.2f} to {1 / least:.2f})"
        for name, (least, middle, most) in found["one_by_two"].items()
    )
    return word, f"{told} of the processor time; {found['net']} {found['depths']}, {where(found)}"


@claim("Four processes with uneven shares decide as one, and wait for a slow one no longer than it is slow", OURS,
       "bench/scale.py", "scale.json")  # fmt: skip
def _four_processes(found: Found) -> Told:
    slow = found["four_slow"]
    waited, paused = max(slow["slow"]) - max(slow["even"]), slow["steps"] * slow["pause"]
    word = share([found["four_uneven"]["same_plan"], waited <= 1.5 * paused])[0]
    same = "the same plan" if found["four_uneven"]["same_plan"] else "another plan"
    return word, f"{same}; an epoch {waited:.1f} s longer for pauses of {paused:.1f} s; {where(found)}"


@claim("`optimize vgg16 --data digits` loses no accuracy at a fraction of the cost", OURS, "bench/demo.py", "demo.json")
def _demo(found: Found) -> Told:
    cells = {row[0]: row[1:] for row in found["rows"]}
    top1, macs = cells["top-1 trained"], cells["MACs"]
    word = IN_PART if float(top1[1].split()[0]) >= float(top1[0].split()[0]) else share([False])[0]
    told = f"top-1 {top1[0]} to {top1[1]} at {macs[2]} the MACs; digits (easy: in part at best), one seed"
    return word, f"{told}, {where(found)}"
