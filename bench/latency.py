"""How near the predicted time of a plan is to the measured one, in a target: `python bench/latency.py`.

Nine nets of untrained weights (times do not tell) are decomposed for a target under a limit on latency. Predicted and
measured shares of the net's time, and their gap, go to bench/results/latency.json with versions and hardware.
"""

import json
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import convsmith as cs
from convsmith.environment import environment
from convsmith.errors import BudgetError
from convsmith.files import write_text
from convsmith.load import Wish, load

OUT = Path(__file__).parent / "results" / "latency.json"
CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)
NETS = {
    "resnet20": (CIFAR, "cp:r=8", 0.7), "resnet32": (CIFAR, "dw-pw", 0.8), "resnet56": (CIFAR, "spatial:r=8", 0.7),
    "vgg16": (CIFAR, "channel:r=4", 0.8), "mobilenet": (CIFAR, "channel:r=4", 0.9),
    "torchvision:resnet18": (IMAGENET, "dw-pw", 0.8), "torchvision:vgg11_bn": (IMAGENET, "spatial:r=8", 0.7),
    "timm:resnet26": (IMAGENET, "channel:r=4", 0.8), "torchvision:resnet50": (IMAGENET, "cp:r=8", 0.7),
}  # fmt: skip


def row(name: str, target: str, file: Path) -> dict[str, object]:
    """One plan: what was predicted and measured, in milliseconds; the first attempt is the prediction's own."""
    shape, block, limit = NETS[name]
    loaded = load(name, Wish(shape))
    graph = loaded.graph()
    told: dict[str, object] = {"net": name, "target": target, "block": block, "limit": limit}
    try:
        plan = cs.decompose(graph, model=loaded.model, block=block, max_latency=limit, target=target, latency_file=file)
    except BudgetError as error:
        return told | {"refused": str(error)}
    (base, predicted), (before, after) = plan.latency_ms or (0.0, 0.0), plan.measured_ms or (0.0, 0.0)
    gap = (predicted / base) / (after / before) - 1
    macs = plan.new.macs / plan.base.macs
    return told | {"predicted_ms": [base, predicted], "measured_ms": [before, after], "gap": gap, "macs": macs}


def main(target: str, names: list[str]) -> None:
    rows = json.loads(OUT.read_text())["rows"] if OUT.is_file() else []
    with TemporaryDirectory() as folder:
        for name in names or NETS:
            rows = [each for each in rows if (each["net"], each["target"]) != (name, target)]
            rows.append(row(name, target, Path(folder) / "latency.jsonl"))
            print(rows[-1], flush=True)
            gaps = [abs(each["gap"]) for each in rows if "gap" in each]
            told = {"median_gap": median(gaps) if gaps else None, "rows": rows, **environment()}
            write_text(OUT, json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "onnxruntime", sys.argv[2:])
