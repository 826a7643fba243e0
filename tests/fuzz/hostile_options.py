"""Hostile command lines: every option of every command, as the commands declare them, with values of all kinds."""

from pathlib import Path
from random import Random
from typing import Any

import typer
from changes import NUMBERS, TEXTS
from hostile_records import plans

from convsmith.cli.app import app

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
LISTS = [
    "3,32,32",
    "3,8,8",
    "1,1,1",
    "3,50000,50000",
    "1000000,2,2",
    "0,0,0",
    "-1,3,3",
    "3",
    "3,3",
    "4,2,8,8",
    "a,b,c",
    ",",
    "1e3,1,1",
    "3,32,32,",
]
LIMITS = ("0.5", "0.5x", "50%", "300M", "5ms", "0", "-1", "nan", "1e999", "1e-9x", "99x", "x", "1", "2")
NAMES = [
    "auto",
    "dw-pw",
    "dw-pw:r=2",
    "cp:r=8",
    "cp:R=99999999",
    "dw-rpw:g=0",
    "seq:",
    "none",
    "als",
    "svd",
    "eager",
    "onnx",
    "pt2,",
    "latency",
    "macs",
]
NETS = [
    "resnet20",
    "zoo:vgg11",
    "mobilenet",
    "own_net:make",
    "own_net:nothing",
    "nowhere:make",
    "timm:nothing",
    "torchvision:nothing",
    "os:abort",
    "./own_net.py:make",
]
SOUND = {
    "input": "3,32,32", "classes": "10", "method": "svd", "block": "dw-pw", "max_macs": "0.9x", "max_params": "2x",
    "seed": "3", "device": "cpu", "format": "onnx", "mean": "0.5,0.5,0.5", "std": "0.5,0.5,0.5", "keep": "0.0",
    "override": "1.0=dw-pw", "by": "value", "convention": "exact", "alpha": "2", "count": "ptflops",
    "compare": "own_net:make", "blocks": "9",
    "recover": "bn", "schedule": "cosine", "runtimes": "eager", "batches": "1",
}  # fmt: skip
SLOW = {"train", "optimize", "expand", "bench"}  # what a sound line of would take minutes: theirs lack something


def options(random: Random, folder: Path) -> list[object]:
    """A command with up to five of its options."""
    name = random.choice([*COMMANDS])
    command = COMMANDS[name]
    (folder / "plan.json").write_text(random.choice(plans()))
    args: list[object] = [name]
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            args += [_argument(parameter, random, folder, name)]
    own = [each for each in command.params if each.param_type_name == "option" and each.name not in ("help", "verbose")]
    needed = [each for each in own if each.required and random.random() < 0.9]
    for option in dict.fromkeys([*needed, *random.sample(own, min(len(own), random.randint(0, 5)))]):
        args += (
            [random.choice(option.opts)] if option.is_flag else [option.opts[-1], _value(option, random, folder, name)]
        )
    return args if "--input" in args or name in ("search", "list", "report") else [*args, "--input", "3,32,32"]


def _argument(parameter: Any, random: Random, folder: Path, name: str) -> object:
    if parameter.name == "plan":
        return folder / "plan.json"
    if random.random() < 0.8 and name not in ("search", "list", "report"):
        return "own_net:make"
    return random.choice(
        (*NETS, *(text for text in TEXTS if not text.startswith("-")), folder, *LISTS, *NAMES, folder / "plan.json")
    )


def _value(option: Any, random: Random, folder: Path, name: str) -> object:
    """A value of a kind that the option may take, or of another; what is written stays in the folder."""
    if option.name in ("out", "html", "json"):
        return random.choice((folder / "out", folder / "plan.json", folder, folder / "plan.json" / "x"))
    if option.name == "data":
        sound = [] if name in SLOW else ["digits"]
        return random.choice(
            (*sound, "nothing", f"imagefolder:{folder}", f"images:{folder}", "cifar10:", ":", folder, "")
        )
    if option.name in SOUND and random.random() < 0.75:
        return SOUND[option.name]
    if option.name in ("images", "epochs", "batch_size", "budget", "threads", "count"):  # many are sound, and slow
        return random.choice((-1, 0, 1, 2, 4, "x", "1.5", "", 2**63))
    return random.choice(
        (
            *TEXTS[:6],
            *map(str, NUMBERS),
            *LISTS,
            *LIMITS,
            *NAMES,
            "0.5,0.5,0.5",
            "a=b",
            "0=dw-pw",
            "cpu",
            "cuda:9",
            "meta",
            folder,
            folder / "plan.json",
        )
    )
