"""What several processes on one machine's CPU share of planning and fitting: `python bench/scale.py --data digits`.

For each command the processor time of the busiest process, in seconds: what it would take where each process has a core
of its own and the others do not keep it waiting. One process and two are measured in turns; loading is left out.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from convsmith.environment import environment
from convsmith.files import write_text

RESULT = Path(__file__).parent / "results" / "scale.json"
# Loading ends where a model is put to work; what comes behind is what is shared.
TIMED = """
import os, time
from contextlib import contextmanager
from importlib import import_module
train = import_module("convsmith.train")
before = train.at_work
@contextmanager
def timed(*given):
    with before(*given):
        start = time.process_time()
        yield
        print("busy", os.environ["RANK"], time.process_time() - start, flush=True)
train.at_work = timed
from convsmith.cli import main
main()
"""


def busiest(folder: Path, processes: int, *args: object) -> float:
    """Seconds of processor time of the process that had most to do."""
    (folder / "run.py").write_text(TIMED)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    told = subprocess.run(
        [sys.executable, *launch, str(folder / "run.py"), *map(str, args)], check=True, stdout=subprocess.PIPE,
        text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    ).stdout  # fmt: skip
    return max(float(seconds) for seconds in re.findall(r"^busy \d+ (\S+)$", told, re.MULTILINE))


def main() -> None:
    """Measure decompose and apply, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="resnet20")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    told = parser.parse_args()
    seconds: dict[str, dict[int, list[float]]] = {name: {1: [], 2: []} for name in ("decompose", "apply")}
    common = ("--input", "3,32,32", "--data", told.data, "--images", told.images, "--device", "cpu", "-q")
    with TemporaryDirectory() as name:
        folder = Path(name)
        plan = folder / "plan.json"
        for _ in range(told.repeats):
            for count in (1, 2):
                used = busiest(folder, count, "decompose", told.net, *common, "--max-macs", "0.5x", "-o", plan)
                seconds["decompose"][count].append(used)
                used = busiest(folder, count, "apply", told.net, plan, *common, "--out", folder / "new")
                seconds["apply"][count].append(used)
    ratios = {name: median(one / two for one, two in zip(own[1], own[2], strict=True)) for name, own in seconds.items()}
    record = {"what": __doc__, **vars(told), "seconds": seconds, "one_by_two": ratios, **environment()}
    write_text(RESULT, json.dumps(record, indent=1) + "\n")
    print(json.dumps({"seconds": seconds, "one_by_two": ratios}, indent=1))


if __name__ == "__main__":
    main()
