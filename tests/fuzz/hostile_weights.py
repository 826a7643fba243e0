"""Hostile weights: sound state dicts of the small net changed in keys, types, shapes and bytes, with code in them."""

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from changes import MARK, TEXTS, VALUES, Payload, in_bytes, in_json
from safetensors.torch import save
from torch import Tensor

import own_net

State = dict[Any, Any]
PICKLES = (
    b"cos\nmkdir\n(S'MARK'\ntR.", b"\x80\x02cposix\nmkdir\nX\x04\x00\x00\x00MARK\x85R.", b"cbuiltins\neval\n(S'1'\ntR.",
    b"\x80\x04\x95", b".", b"(" * 2000 + b"t" * 2000 + b".", b"]" + b"2" * 500 + b"a" * 499 + b".",
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(tR.",
)  # fmt: skip


def state() -> State:
    torch.manual_seed(0)
    return own_net.make().state_dict()


def _quantized(x: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8)


def _nested(x: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([x.flatten(), torch.ones(1)])


TENSORS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda x: x.to(torch.complex64), lambda x: x.to(torch.int32), lambda x: x.to(torch.float8_e4m3fn),
    lambda x: x.to(torch.bfloat16), lambda x: x.double(), lambda x: x > 0, lambda x: x.flatten(),
    lambda x: x.flatten()[:0], lambda x: x.sum(), lambda x: x * float("nan"), lambda x: x / 0, lambda x: x * 1e38,
    lambda x: x[None], lambda x: torch.zeros_like(x),
)  # fmt: skip
# What only files of torch can hold; the expanded ones hold one number and claim many.
OWN_TENSORS: tuple[Callable[[Tensor], Tensor], ...] = (
    *TENSORS, lambda x: x.to("meta"), lambda x: x.to_sparse(), _quantized, lambda x: torch.ones(()).expand(x.shape),
    lambda x: torch.ones(1).expand(10**6, 10**6), lambda x: torch.nn.Parameter(x),
    lambda x: x.mT if x.ndim > 1 else x[None],
    lambda x: _nested(x),
)  # fmt: skip


def _changed(held: State, random: Random, tensors: tuple[Callable[[Tensor], Tensor], ...]) -> None:
    key, kind = random.choice(list(held)), random.randrange(4)
    if kind == 0:
        del held[key]
    elif kind == 1:
        held[random.choice((*TEXTS, f"module.{key}", f"{key}.x", key.upper()))] = held.pop(key)
    else:
        held[key] = random.choice(tensors)(torch.as_tensor(held[key]).float())


def safetensors_file(random: Random, folder: Path) -> list[object]:
    """Tensors changed, the header changed, or bytes."""
    held, path, kind = state(), folder / "w.safetensors", random.randrange(3)
    for _ in range(random.randint(1, 3) if kind == 0 else 0):
        _changed(held, random, TENSORS)
    data = save({str(key).encode(errors="replace").decode(): value.contiguous() for key, value in held.items()})
    if kind == 1:
        size = int.from_bytes(data[:8], "little")
        header = json.dumps(in_json(json.loads(data[8 : 8 + size]), random)).encode()
        size = random.choice((len(header),) * 4 + (0, 1, 2**31, 2**63, 2**64 - 1))
        data = size.to_bytes(8, "little") + header + data[8 + size :]
    path.write_bytes(in_bytes(data, random) if kind == 2 else data)
    return _reading(path, random)


def torch_file(random: Random, folder: Path) -> list[object]:
    """Tensors and keys changed, things beside them, code, pickles by hand, or bytes; also of the old format."""
    held, path, kind = dict(state()), folder / random.choice(("w.pth", "w.pt", "w.ckpt", "w.bin")), random.randrange(5)
    for _ in range(random.randint(1, 3) if kind < 2 else 0):
        _changed(held, random, OWN_TENSORS)
    file = io.BytesIO()
    torch.save(_wrapped(held, random, folder), file, _use_new_zipfile_serialization=random.random() < 0.75)
    data = file.getvalue()
    if kind == 3:
        pickle = random.choice(PICKLES).replace(b"MARK", str(folder / MARK).encode())
        data = pickle if random.random() < 0.3 else _repickled(data, pickle)
    path.write_bytes(in_bytes(data, random) if kind == 4 else data)
    return _reading(path, random)


def _wrapped(held: State, random: Random, folder: Path) -> Any:
    more: State = {
        random.choice((*TEXTS, 0, 1.5, None, (1,))): random.choice((*VALUES, Payload(folder), own_net.make, torch.ones))
    }
    return random.choice(
        (held, held, {"state_dict": held, **more}, {**held, **more}, [held], *more.values(), held | {0: 1})
    )


def _repickled(data: bytes, pickle: bytes) -> bytes:
    """A zip of torch's with another pickle in it."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return pickle
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickle if name.endswith("data.pkl") else old.read(name))
    return file.getvalue()


def _reading(path: Path, random: Random) -> list[object]:
    net = ("own_net:make", "--input", "3,32,32", "--weights", path)
    return random.choice((
        ["decompose", *net, "--block", "dw-pw", "-o", path.with_name("plan.json"), "--json", "-"],
        ["export", *net, "--format", "onnx", "--out", path.with_name("out")],
    ))  # fmt: skip
