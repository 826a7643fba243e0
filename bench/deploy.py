"""Plans for ONNX Runtime of trained nets, held to their word: `python bench/deploy.py NET=WEIGHTS .. --data DATA`.

Each net of the zoo (small form) is planned with 512 images under limits on its time in ONNX Runtime (one thread, batch
1), carried out without training, and measured: time beside the original, in turns, in float and in 8-bit integers, and
top-1 on the test split. One row a net and limit goes to bench/results/deploy.json with versions and hardware; a row
that is there is not made again. `--note NET=TEXT` says where weights come from. `--page` writes docs/results/deploy.md.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import torch

import convsmith as cs
from convsmith.environment import environment
from convsmith.files import write_text
from convsmith.load import load_with_data

OUT = Path(__file__).parent / "results" / "deploy.json"
PAGE = Path(__file__).parents[1] / "docs" / "results" / "deploy.md"
TARGET = "onnxruntime"
LIMITS = (0.6, 0.45)
BATCHES = (1, 8)


def row(name: str, weights: Path, reference: str, limit: float) -> dict[str, Any]:
    """One net under one limit: predicted and measured time, accuracy, and what planning and fitting took."""
    loaded, data = load_with_data(name, reference, weights=weights)
    model = loaded.model.eval()
    start = process_time()
    plan = cs.decompose(
        cs.capture(model, torch.zeros(1, 3, 32, 32)), model=model, data=data, target=TARGET, max_latency=limit
    )
    planned = process_time()
    made = cs.rewrite(model, plan, data=data).model.eval()
    fitted = process_time()
    with TemporaryDirectory() as folder:
        models = {"original": model, "plan": made}
        checks = {
            each: cs.export(module, Path(folder) / f"{each}.onnx", input=(3, 32, 32), int8=data)
            for each, module in models.items()
        }
        small = {each: Path(folder) / f"{each}.onnx" for each in models}
        found = cs.bench(models, input=(3, 32, 32), batches=BATCHES, runtimes=(TARGET,), threads=1, int8=small)
    top1 = {each: cs.evaluate(module, data.test).top1 for each, module in models.items()}
    kinds = {kind: sum(edit.kind == kind for edit in plan.edits) for kind in ("replace", "narrow", "remove")}
    assert plan.latency_ms is not None and plan.measured_ms is not None
    return {
        "net": name, "limit": limit, "edits": kinds, "macs": plan.new.macs / plan.base.macs,
        "predicted": plan.latency_ms[1] / plan.latency_ms[0], "measured": plan.measured_ms[1] / plan.measured_ms[0],
        "top1": top1,
        "int8_top1": {each: check.accuracy.int8 if check.accuracy else None for each, check in checks.items()},
        "in_float": {each: len(check.in_float) for each, check in checks.items()},
        "times": [
            {
                "model": cell.model, "batch": cell.batch, "median_ms": cell.median_ms,
                "quartiles_ms": [cell.q1_ms, cell.q3_ms], "ratio": cell.ratio,
            }
            for cell in found.cells
        ],
        "processor_s": {"planning": planned - start, "fitting": fitted - planned},
    }  # fmt: skip


def page(found: Mapping[str, Any], timed: Mapping[str, Any]) -> str:
    """The page of the documentation: plans by accuracy and time, then the times predicted by `bench/latency.py`."""
    return "\n".join([*_deployed(found), "", *_predicted(timed)]) + "\n"


def _predicted(found: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Predicted and measured time",
        "",
        "Nets without training (times do not tell), decomposed for ONNX Runtime under a limit, batch 1, one thread.",
        "All are shares of the original. Predicted is what the last plan was chosen by, measured what it then took.",
        "",
        "| net | block | limit | MACs | predicted | measured | gap |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        start = f"| {row['net']} | `{row['block']}` | {row['limit']}x |"
        if "refused" in row:
            lines.append(f"{start} refused | | | |")
            continue
        (base, predicted), (before, after) = row["predicted_ms"], row["measured_ms"]
        shares = f"{row['macs']:.2f}x | {predicted / base:.2f}x | {after / before:.2f}x"
        lines.append(f"{start} {shares} | {100 * row['gap']:+.0f} % |")
    median = f"The median gap is {100 * found['median_gap']:.1f} %."
    return [*lines, "", f"{median} A plan that misses its limit when measured is planned again, or refused."]


def _deployed(found: Mapping[str, Any]) -> list[str]:
    """Two rows a plan, in float and in 8-bit integers, beside the original's."""
    lines = [
        "# Plans for ONNX Runtime",
        "",
        "Nets trained on CIFAR-10 (JPEG copies), planned with 512 images under `--target onnxruntime --max-latency`,",
        "and carried out without training. Time is the share of the original's in float32, one thread, run in turns.",
        "Top-1 is on 10,000 test copies. int8 files are made with the same images; layers left in float are told.",
        "",
        "| net | limit | edits | precision | time, batch 1 | time, batch 8 | top-1 % |",
        "|---|---|---|---|---|---|---|",
    ]
    first: set[str] = set()
    for row in found["rows"]:
        share = {(cell["model"], cell["batch"]): cell["ratio"] for cell in row["times"]}
        names = ["plan"] if row["net"] in first else ["original", "plan"]
        first.add(row["net"])
        for name in names:
            made = "" if name == "original" else ", ".join(f"{n} {kind}" for kind, n in row["edits"].items() if n)
            limit = "" if name == "original" else f"{row['limit']}x"
            for precision, key, top1 in (("float32", name, row["top1"]), ("int8", f"{name} int8", row["int8_top1"])):
                times = " | ".join(f"{share[key, batch]:.2f}x" for batch in BATCHES)
                kept = row["in_float"][name] if precision == "int8" else 0
                told = f"{precision}, {kept} in float" if kept else precision
                lines.append(f"| {row['net']} | {limit} | {made} | {told} | {times} | {100 * top1[name]:.2f} |")
    lines += ["", *(f"- {net}: {text}." for net, text in found["weights"].items())]
    seconds = [sum(row["processor_s"].values()) for row in found["rows"]]
    lines.append(f"- Planning and fitting took {min(seconds):.0f} to {max(seconds):.0f} s of processor time.")
    runtime = f"ONNX Runtime {found['versions']['onnxruntime']}"
    lines.append(f"- {found['hardware']['cpu']}, {runtime}, a busy machine: take ratios.")
    return lines


def main() -> None:
    """Make the rows that are missing, and write the file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", metavar="NET=WEIGHTS")
    parser.add_argument("--data", default="")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--note", action="append", default=[], metavar="NET=TEXT")
    told = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(OUT.read_text()) if OUT.is_file() else {"rows": [], "weights": {}}
    known["weights"] |= dict(note.split("=", 1) for note in told.note)
    for name, weights in (net.split("=", 1) for net in told.nets):
        for limit in LIMITS:
            if not any((each["net"], each["limit"]) == (name, limit) for each in known["rows"]):
                known["rows"].append(row(name, Path(weights), told.data, limit))
                write_text(OUT, json.dumps({"what": __doc__, **environment(), **known}, indent=1) + "\n")
    if told.page:
        write_text(PAGE, page(*(json.loads(path.read_text()) for path in (OUT, OUT.with_name("latency.json")))))


if __name__ == "__main__":
    main()
