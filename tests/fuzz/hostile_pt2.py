"""Hostile .pt2 files: the JSON, the weights and the archive of sound ones changed, with code in them."""

import io
import json
import zipfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random

import torch
from changes import Payload, in_bytes, in_json
from torch import nn
from torch.export import Dim

NETS = (
    lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)),
    lambda: nn.Sequential(nn.Conv2d(4, 8, 3, 2, groups=2), nn.Upsample(scale_factor=2), nn.AdaptiveAvgPool2d(1)),
    lambda: nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(64, 4, 32, batch_first=True)),
)


@cache
def entries(which: int) -> dict[str, bytes]:
    """A sound file taken apart."""
    torch.manual_seed(0)
    file = io.BytesIO()
    program = torch.export.export(NETS[which]().eval(), (torch.zeros(2, 4, 8, 8),), dynamic_shapes=({0: Dim("batch")},))
    torch.export.save(program, file)
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pt2_file(random: Random, folder: Path) -> list[object]:
    """One to three entries changed, and now and then the archive's bytes."""
    parts, path = dict(entries(random.randrange(len(NETS)))), folder / "net.pt2"
    for _ in range(random.randint(1, 3)):
        _change(parts, random, folder)
    with zipfile.ZipFile(path, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    if random.random() < 0.15:
        path.write_bytes(in_bytes(path.read_bytes(), random))
    return ["analyze", path, "--json", "-"]


def _change(parts: dict[str, bytes], random: Random, folder: Path) -> None:
    texts = [name for name in parts if name.endswith(".json")]
    kind, name = random.randrange(8), random.choice(list(parts))
    if kind < 4:
        name = random.choice([*[name for name in texts if "models/" in name] * 3, *texts] or [name])
        with suppress(ValueError):  # changed before
            parts[name] = json.dumps(in_json(json.loads(parts[name]), random)).encode()
    elif kind == 4:
        del parts[name]
        parts.setdefault("archive/empty", b"")
    elif kind == 5:
        file = io.BytesIO()
        torch.save(Payload(folder), file)
        parts[name] = file.getvalue()
    elif kind == 6:
        parts[random.choice(("../out.txt", "/out.txt", f"{name}.json", name.replace("model", "other")))] = parts[name]
    else:
        parts[name] = in_bytes(parts[name], random)
