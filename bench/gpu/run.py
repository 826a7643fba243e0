"""One driver for what needs a GPU: cells in order of worth, as many as the time allows, each time on from there.

    python bench/gpu/run.py --data cifar10:data/cifar10 --minutes 8.5 --out DIR     # measure
    python bench/gpu/run.py --page --out DIR                                        # bring it into the documentation

What is done is known from the committed bench/results/SET.json and from DIR/SET.json, which is written whole after each
cell. First the card is checked: convolutions and rolling pointwise against float64 on the CPU. A cell whose check fails
is not measured. None is begun that would not end in time, and a run that is cut off goes on from `--work`, where
checkpoints are. `--page` takes DIR/SET.json over into bench/results and writes the tables of docs/evidence.md anew.

`--set small` are small forms of the published tables for a CPU: `nice -n 19 python bench/gpu/run.py --set small ..`.

CIFAR-10 travels as an ignored folder of the checkout, data/cifar10 (train-*.parquet and test-*.parquet). A machine
without internet needs wheels of this package and of pydantic: `pip wheel . pydantic` makes them.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

import convsmith as cs
from cells import SETS, Cell
from checks import check
from convsmith.environment import environment
from convsmith.errors import ConvsmithError
from convsmith.files import write_text
from convsmith.train import fastest_precision, pick_device
from loop import Lab, LateError

RESULTS = Path(__file__).parents[1] / "results"
Record = dict[str, Any]


def main() -> int:
    """Measure, or bring into the documentation; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="gpu", choices=SETS, help="which cells")
    parser.add_argument("--data", help="a data reference, such as cifar10:data/cifar10")
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs") / "cells", help="checkpoints")
    parser.add_argument("--device")
    parser.add_argument("--only", default="", help="cells whose names hold this text")
    parser.add_argument("--page", action="store_true")
    told = parser.parse_args()
    own, kept = (folder / f"{told.set}.json" for folder in (told.out, RESULTS))
    if told.page:
        return bring(own, kept)
    if not told.data:
        parser.error("--data: give the images to train on, such as cifar10:data/cifar10")
    end = perf_counter() + 60 * told.minutes
    device = pick_device(told.device)
    lab = Lab(cs.load_data(told.data), device, end, told.work, say)
    done = merged(read(kept), read(own))
    wanted = (cell for cell in SETS[told.set]() if told.only in cell.key)
    return walk(lab, wanted, done, own, told.data.partition(":")[0])


def walk(lab: Lab, cells: Iterable[Cell], done: Record, path: Path, data: str) -> int:
    """Do the cells that are not done, in order, each written when it is; the exit status tells of failures."""
    machine = machine_of(lab)
    done["machines"] |= {machine: environment()}
    done["checks"] |= {machine: check(lab)}
    write(path, done)
    lab.say(f"{machine}: {json.dumps(done['checks'][machine])}")
    wrong = {name for name, one in done["checks"][machine].items() if not one["passed"]}
    failed, late = bool(wrong), set[str]()
    for cell in cells:
        if lab.left <= 0:
            break
        if is_done(done, cell, data) or cell.kind in late:
            continue
        if wrong & {cell.needs, "convolution"}:
            lab.say(f"{cell.key}: not measured, {machine} computes wrong: {', '.join(sorted(wrong))}")
            continue
        try:
            found = measured(lab, cell, expected(done, cell, machine))
        except LateError as reason:
            late.add(cell.kind)
            lab.say(f"{cell.key}: {reason}")
        except (RuntimeError, AssertionError, ConvsmithError) as error:  # one cell must not cost the others' time
            failed = True
            lab.say(f"{cell.key}: failed, {type(error).__name__}: {error}")
        else:
            done["cells"][cell.key] = found | {"data": data, "machine": machine}
            write(path, done)
            clean(lab, cell)
    return int(failed)


def measured(lab: Lab, cell: Cell, seconds: float) -> Record:
    """What a cell gives, its settings and how long it took; raises LateError where there is no time for it."""
    lab.require(seconds)
    lab.say(cell.key)
    began = lab.clock()
    found = cell.work(lab, cell.key, cell.settings)
    return found | {"settings": cell.settings, "seconds": round(lab.clock() - began, 2)}


def machine_of(lab: Lab) -> str:
    """What a result was measured on, in a line."""
    hardware = environment()["hardware"]
    name = torch.cuda.get_device_name(lab.device) if lab.device.type == "cuda" else hardware["cpu"]
    return f"{name}, torch {torch.__version__}, {fastest_precision(lab.device)}"


def is_done(done: Record, cell: Cell, data: str) -> bool:
    """Whether a cell was measured with these settings on these data."""
    found = done["cells"].get(cell.key)
    return found is not None and (found["settings"], found["data"]) == (cell.settings, data)


def expected(done: Record, cell: Cell, machine: str) -> float:
    """Seconds that cells of the kind took at most on this machine; 0 where none was measured."""
    like = [
        found["seconds"] for key, found in done["cells"].items()
        if key.rpartition("/")[0] == cell.kind and found["machine"] == machine
    ]  # fmt: skip
    return max(like, default=0.0)


def clean(lab: Lab, cell: Cell) -> None:
    """Remove the checkpoints of a cell that is written, and what it left on the GPU."""
    for path in lab.work.glob(f"{lab.state(cell.key).stem}*.pt"):
        path.unlink()
    if lab.device.type == "cuda":
        torch.cuda.empty_cache()


def read(path: Path) -> Record:
    """A result file, or an empty one."""
    if not path.is_file():
        return {"cells": {}, "machines": {}, "checks": {}}
    found: Record = json.loads(path.read_text())
    return found


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> Record:
    """Both files' records; the second's where both have one."""
    return {part: first[part] | second[part] for part in ("cells", "machines", "checks")}


def write(path: Path, done: Record) -> None:
    """The file, whole."""
    write_text(path, json.dumps({"what": __doc__} | done, indent=1) + "\n")


def bring(own: Path, kept: Path) -> int:
    """Take a run's results over into the committed file, and write the documentation's tables anew."""
    sys.path.append(str(Path(__file__).parents[1]))
    import evidence

    if not own.is_file():
        say(f"{own}: is not there; run the driver with this --out first")
        return 1
    write(kept, merged(read(kept), read(own)))
    evidence.main()
    return 0


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
