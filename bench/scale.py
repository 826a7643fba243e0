"""What several processes on one machine's CPU share, and what a slow one costs: `python bench/scale.py`.

For each command the processor time of the busiest process, in seconds: what it would take where each process has a core
of its own and the others do not keep it waiting. One process and two are measured in turns; loading is left out.
Then four processes stand for many: shares that are uneven, and one process that is slow by a pause in each step, in
seconds of wall time an epoch.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from convsmith.data import load_data
from convsmith.environment import environment
from convsmith.files import write_text

RESULT = Path(__file__).parent / "results" / "scale.json"
# Loading ends where a model is put to work, or an epoch begins; what comes behind is what is shared.
TIMED = """
import os, sys, time
from contextlib import contextmanager
from importlib import import_module
rank, pause = int(os.environ["RANK"]), float(os.environ.get("PAUSE", "0"))
def told(cpu, wall):
    with open(f"{sys.argv[0]}.{rank}", "a") as file:
        print(time.process_time() - cpu, time.monotonic() - wall, file=file)
train, loop = import_module("convsmith.train"), import_module("convsmith.train.loop")
before, epoch, step = train.at_work, loop._epoch, loop._step
@contextmanager
def timed(*given):
    with before(*given):
        start = time.process_time(), time.monotonic()
        yield
        told(*start)
def timed_epoch(*given):
    start = time.process_time(), time.monotonic()
    made = epoch(*given)
    told(*start)
    return made
def slow_step(*given):
    if rank == 3:
        time.sleep(pause)
    return step(*given)
train.at_work, loop._epoch, loop._step = timed, timed_epoch, slow_step
from convsmith.cli import main
main()
"""
PAUSE = 0.2  # seconds a step


def run(folder: Path, processes: int, *args: object, pause: float = 0.0) -> dict[str, list[float]]:
    """Seconds of processor time and of wall time, of each process."""
    script = folder / "run.py"
    script.write_text(TIMED)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), str(script)]
    subprocess.run(
        [sys.executable, *launch, *map(str, args)], check=True, stdout=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PAUSE": str(pause)},
    )  # fmt: skip
    told = [folder / f"run.py.{rank}" for rank in range(processes)]
    lines = [path.read_text().split() for path in told]
    for path in told:
        path.unlink()
    return {"cpu": [float(line[0]) for line in lines], "wall": [float(line[1]) for line in lines]}


def edits(plan: Path) -> list[tuple[str, str]]:
    """What a plan does, layer by layer."""
    return [(edit["layer"], edit["block"]) for edit in json.loads(plan.read_text())["edits"]]


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="resnet20")
    parser.add_argument("--depths", default="1,1,1")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    told = parser.parse_args()
    with TemporaryDirectory() as name:
        found = measured(Path(name), told)
    write_text(RESULT, json.dumps({"what": __doc__, **vars(told), **found, **environment()}, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def measured(folder: Path, told: argparse.Namespace) -> dict[str, Any]:
    """The busiest of one process and of two, in turns, by command; then four processes, and four with a slow one."""
    net = (told.net, "--input", "3,32,32", "--blocks-per-stage", told.depths, "--data", told.data, "--device", "cpu")
    plan, fit = folder / "plan.json", ("--images", told.images, "-q")
    training = ("train", *net, "--epochs", 1, "--lr", 0.05, "--batch-size", told.batch_size, "-q", "--out")
    commands: dict[str, tuple[object, ...]] = {
        "train": (*training, folder / "trained"),
        "decompose": ("decompose", *net, *fit, "--max-macs", "0.5x", "-o", plan),
        "apply": ("apply", told.net, plan, *net[1:], *fit, "--out", folder / "new"),
    }
    seconds: dict[str, dict[int, list[float]]] = {name: {1: [], 2: []} for name in commands}
    for _ in range(told.repeats):
        for count in (1, 2):
            for name, command in commands.items():
                seconds[name][count].append(max(run(folder, count, *command)["cpu"]))
                subprocess.run(["rm", "-rf", folder / "trained", folder / "new"], check=True)
    alone = edits(plan)
    uneven = run(folder, 4, *commands["decompose"])
    found = {"same_plan": alone == edits(plan), "cpu": uneven["cpu"]}
    epochs = {pause: run(folder, 4, *training, folder / str(pause), pause=pause)["wall"] for pause in (0.0, PAUSE)}
    steps = len(load_data(told.data, input=(3, 32, 32)).train) // told.batch_size
    ratios = {name: [one / two for one, two in zip(own[1], own[2], strict=True)] for name, own in seconds.items()}
    return {
        "seconds": seconds,
        "one_by_two": {name: [min(each), median(each), max(each)] for name, each in ratios.items()},
        "four_uneven": found,
        "four_slow": {"pause": PAUSE, "steps": steps, "even": epochs[0.0], "slow": epochs[PAUSE]},
    }


if __name__ == "__main__":
    main()
