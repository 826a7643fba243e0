"""Hostile plans, folders and records: JSON that convsmith itself wrote, changed in parts or in bytes."""

import json
import shutil
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
from changes import in_bytes, in_json

import convsmith as cs
import own_net
from convsmith.calibration.calibrate import calibrate
from convsmith.calibration.statistics_file import save_statistics
from convsmith.load import Wish, load, save

NET, X = ("own_net:make", "--input", "3,32,32"), torch.zeros(1, 3, 32, 32)


@cache
def plans() -> tuple[str, ...]:
    """One by each planner."""
    net = own_net.make().eval()
    made = (
        cs.organize(net, X),
        cs.decompose(net, X),
        cs.decompose(net, X, max_macs=0.4),
        cs.decompose(net, X, block="cp:r=4"),
    )
    return tuple(plan.to_json() for plan in made)


@cache
def folder_files() -> dict[str, bytes]:
    """A folder that apply wrote, with the moments of its layers and a line of history."""
    with TemporaryDirectory() as name:
        loaded = load("own_net:make", Wish((3, 32, 32)))
        plan = cs.decompose(loaded.graph(), block="dw-pw")
        new = loaded.after(cs.apply(loaded.model, plan), plan)
        save(new, Path(name))
        moments = calibrate(new.model, torch.rand(4, 3, 32, 32))
        save_statistics(Path(name) / "stats.safetensors", moments, new.graph().fingerprint)
        return {path.name: path.read_bytes() for path in Path(name).iterdir()}


def _altered(text: bytes, random: Random) -> bytes:
    """Its JSON changed in parts, or its bytes; those too where an earlier change has left no JSON."""
    if random.random() >= 0.2:
        with suppress(ValueError):
            return json.dumps(in_json(json.loads(text), random)).encode()
    return in_bytes(text, random)


def plan_file(random: Random, folder: Path) -> list[object]:
    """A plan changed, applied; now and then with images."""
    path = folder / "plan.json"
    path.write_bytes(_altered(random.choice(plans()).encode(), random))
    data = ["--data", "digits", "--images", 4] if random.random() < 0.1 else []
    return ["apply", NET[0], path, *NET[1:], "--out", folder / "out", *data]


def model_folder(random: Random, folder: Path) -> list[object]:
    """One or two files of a folder changed, left out, or exchanged; then what reads folders."""
    own, files = folder / "net", dict(folder_files())
    own.mkdir()
    for _ in range(random.randint(1, 2)):
        name = random.choice([name for name in files if name.endswith(".json")] * 3 + [*files])
        kind = random.randrange(10)
        if kind == 0 and len(files) > 1:
            del files[name]
        elif kind == 1:
            files[name] = random.choice([*files.values()])
        else:
            files[name] = _altered(files[name], random) if name.endswith(".json") else in_bytes(files[name], random)
    for name, data in files.items():
        (own / name).write_bytes(data)
    if random.random() < 0.3 and (own / "stats.safetensors").exists():
        shutil.move(own / "stats.safetensors", folder)
        return [
            "decompose",
            own,
            "--stats",
            folder / "stats.safetensors",
            "--max-macs",
            "0.5x",
            "-o",
            folder / "p.json",
        ]
    return random.choice(
        (["analyze", own, "--json", "-"], ["report", own], ["export", own, "--format", "onnx", "-o", folder / "out"])
    )
