"""Claims on nets where they are shipped: time, channels, forms and planning."""

from statistics import mean

from claim import NOT_MEASURED, OURS, Found, Told, claim, points, share, verdict, where

GOALS = {0.6: 0.01, 0.45: 0.03}  # top-1 that may be lost at each share of the time


@claim("Plans for ONNX Runtime take .60 of the time at 1 point lost, .45 at 3 points, without training", OURS,
       "bench/deploy.py", "deploy.json")  # fmt: skip
def _deployed(found: Found) -> Told:
    rows = found["rows"]
    lost = [row["top1"]["original"] - row["top1"]["plan"] for row in rows]
    word = share(
        row["measured"] <= row["limit"] and less <= GOALS[row["limit"]] for row, less in zip(rows, lost, strict=True)
    )[0]
    told = "; ".join(
        f"{row['net']} {row['measured']:.2f}x at {100 * less:.1f} points"
        for row, less in zip(rows, lost, strict=True)
    )  # fmt: skip
    return word, f"{told}; 10,000 test copies, one draw, {where(found)}"


LOST = {0.27: 1.3, 0.44: 0.2}  # points of top-1 that ResNet-20 may lose at each share of its MACs


def _lost(found: Found, part: str) -> dict[tuple[float, int], float]:
    """Points lost by limit and draw, where a part of the fits was measured."""
    own = (row for row in found["rows"] if row["part"] == part)
    return {(row["limit"], row["draw"]): 100 * (found["original"] - row["top1"]) for row in own}


@claim("ResNet-20 loses at most 1.3 points at .27x MACs, .2 at .44x, without training", OURS,
       "bench/ablation.py", "ablation.json")  # fmt: skip
def _fitted(found: Found) -> Told:
    lost = _lost(found, "joint")
    own = {limit: [less for (of, _), less in lost.items() if of == limit] for limit in LOST}
    if not all(own.values()):
        return NOT_MEASURED, "not under every limit so far"
    told = ", ".join(f"{mean(less):.2f} points at {limit}x ({len(less)} draws)" for limit, less in own.items())
    return share(mean(own[limit]) <= most for limit, most in LOST.items())[0], f"{told}; {where(found)}"


@claim("A joint refit of all weights after the fits, without labels, gains accuracy", OURS,
       "bench/ablation.py", "ablation.json")  # fmt: skip
def _jointly(found: Found) -> Told:
    before, after = (_lost(found, part) for part in ("relus", "joint"))
    gains = [before[key] - less for key, less in after.items() if key in before]
    if not gains:
        return NOT_MEASURED, "no pair so far"
    return verdict(gains), f"{points(gains)} of draws and limits; {where(found)}"


@claim(
    "8-bit integers cost a plan no more accuracy than they cost the original", OURS, "bench/deploy.py", "deploy.json"
)
def _deployed_int8(found: Found) -> Told:
    fell = {name: [100 * (row["top1"][name] - row["int8_top1"][name]) for row in found["rows"]]
            for name in ("original", "plan")}  # fmt: skip
    pairs = list(zip(fell["plan"], fell["original"], strict=True))
    word, held, count = share(own <= max(base, 0.0) + 0.5 for own, base in pairs)
    kept = [row["in_float"]["plan"] for row in found["rows"]]
    told = ", ".join(f"{own:.1f} and {base:.1f}" for own, base in pairs)
    return (
        word,
        f"{held} of {count} within half a point: points lost by plan and original {told}; {kept} layers in float",
    )


@claim("The predicted time of a plan is within 10 % of the measured time", OURS, "bench/latency.py", "latency.json")
def _predicted(found: Found) -> Told:
    gaps = [abs(row["gap"]) for row in found["rows"] if "gap" in row]
    nets = len({row["net"] for row in found["rows"]})
    return share([found["median_gap"] <= 0.1])[0], (
        f"median {100 * found['median_gap']:.1f} %, {len(gaps)} plans of {nets} of 9 nets, {where(found)}"
    )


@claim("Shares of time are at most .20 above shares of MACs, in ONNX Runtime", OURS, "bench/latency.py", "latency.json")
def _follows(found: Found) -> Told:
    plans = [row for row in found["rows"] if "gap" in row]
    above = [row["measured_ms"][1] / row["measured_ms"][0] - row["macs"] for row in plans]
    word, held, count = share(more <= 0.2 for more in above)
    worst = max(zip(above, plans, strict=True), key=lambda pair: pair[0])
    told = f"{held} of {count} plans, at most {worst[0]:+.2f} ({worst[1]['net']}); times alone, nets without training"
    return word, f"{told}, {where(found)}"


@claim("Groups of channels are narrowed in every net, and the result is proved", OURS, "bench/width.py", "width.json")
def _narrowed(found: Found) -> Told:
    totals = found["totals"]
    word = share([totals["narrowed"] == totals["nets"]])[0]
    told = f"{totals['narrowed']} of {totals['nets']} nets, {totals['groups']} groups, outputs within "
    told += f"{totals['largest difference of outputs']:.0e}; of {totals['of common nets']} common nets "
    told += f"{totals['narrowed of these']}, Torch-Pruning {totals['pruned of these by Torch-Pruning']}"
    return word, f"{told}, {where(found)}"


@claim("Several filters a channel are fastest as a tiled input in ONNX Runtime, 8-bit integers included", OURS,
       "bench/forms.py", "forms.json")  # fmt: skip
def _tiled(found: Found) -> Told:
    rows = {(r["runtime"], r["channels"], r["side"], r["block"]): r["ratio"] for r in found["rows"]}
    ratios = [
        (rows[(*key, block.replace("tile", "group"))] / own)
        for (*key, block), own in rows.items()
        if block.endswith("by=tile") and key[0] != "eager"
    ]
    word, held, count = share(ratio >= 1 for ratio in ratios)
    told = f"{held} of {count}: one grouped convolution takes {min(ratios):.1f} to {max(ratios):.1f} times as long"
    return word, f"{told}, {where(found)}"


@claim("Terms of the three-way form cancel less for the same error", OURS, "bench/terms.py", "terms.json")
def _terms(found: Found) -> Told:
    free, bounded = found["medians"]["free"], found["medians"]["bounded"]
    word = share([bounded["norms"] < free["norms"] and bounded["error"] <= free["error"]])[0]
    told = f"norms of terms {free['norms']:.1f} to {bounded['norms']:.1f} times the weight's, "
    told += f"error {free['error']:.3f} to {bounded['error']:.3f}"
    return word, f"{told}; {found['net']}, medians of {len(found['layers'])} layers"


@claim("Planning and fitting ResNet-20 to 512 images takes under 60 s of processor time", OURS, "bench/planning.py",
       "planning.json")  # fmt: skip
def _planned(found: Found) -> Told:
    own = found["nets"]["resnet20"]
    whole = own["planning"] + own["fitting"]
    return share([whole < 60])[0], f"{whole:.1f} s, {own['peak GB']:.1f} GB, one thread, {where(found)}"


@claim("Planning and fitting ResNet-56 to 512 images takes under 180 s of processor time", OURS, "bench/planning.py",
       "planning.json")  # fmt: skip
def _planned_deeper(found: Found) -> Told:
    own = found["nets"]["resnet56"]
    whole = own["planning"] + own["fitting"]
    return share([whole < 180])[0], f"{whole:.1f} s, {own['peak GB']:.1f} GB, one thread, {where(found)}"
