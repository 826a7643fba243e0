"""A .pt2 archive: JSON and raw tensors taken out of a zip, nothing in it unpickled as anything but tensors."""

import io
import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from zipfile import ZIP_STORED, ZipFile

import torch
from torch import Tensor

DTYPES: dict[int, torch.dtype] = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 9: torch.complex32, 10: torch.complex64, 11: torch.complex128, 12: torch.bool,
    13: torch.bfloat16, 28: torch.uint16, 29: torch.float8_e4m3fn, 30: torch.float8_e5m2, 34: torch.uint32,
    35: torch.uint64,
}  # fmt: skip
WEIGHTS, CONSTANTS = "weights", "constants"  # folders of tensors in the archive
EXPANDED = 2**24  # elements that a tensor may have beyond those that are stored, as tables broadcast before export have
SCHEMA = 8  # the version of the JSON that is understood


class UnsafeError(Exception):
    """What a file holds that cannot be read as plain data: torch may know how, at the price of running code."""


class Archive:
    """The entries of one exported program by their names in it, such as `models/model.json`."""

    def __init__(self, path: Path) -> None:
        self._zip = ZipFile(path)
        self._entries = {info.filename.partition("/")[2]: info for info in self._zip.infolist()}

    def __enter__(self) -> Self:
        """The archive, open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._zip.close()

    def program(self) -> tuple[str, Mapping[str, Any]]:
        """The name of the one program in the archive, and its JSON; UnsafeError where it is unknown."""
        models = [name for name in self._entries if name.startswith("models/") and name.endswith(".json")]
        if len(models) != 1:
            raise UnsafeError(f"{len(models) or 'no'} programs of torch.export in this form")
        record = self.json(models[0])
        version = record["schema_version"]["major"]
        if version != SCHEMA:
            raise UnsafeError(f"a program in version {version} of its format, where {SCHEMA} is known")
        return models[0].removeprefix("models/").removesuffix(".json"), record

    def tensors(self, kind: str, model: str) -> dict[str, Tensor]:
        """A program's weights or constants, on the CPU; those of one memory share it."""
        legacy = f"data/{kind}/{model}.pt"
        if legacy in self._entries:
            return self._pickled(legacy, kind)
        config = self.json(f"data/{kind}/{model}_{kind}_config.json")["config"]
        memory: dict[str, bytearray] = {}
        return {name: self._tensor(kind, name, payload, memory) for name, payload in config.items()}

    def json(self, name: str) -> Any:
        """An entry as JSON."""
        return json.loads(self._bytes(name))

    def _bytes(self, name: str) -> bytes:
        info = self._entries[name]
        if info.compress_type != ZIP_STORED:  # torch compresses nothing, so a file is never less than what is read
            raise ValueError(f"{name} is compressed")
        return self._zip.read(info)

    def _pickled(self, name: str, kind: str) -> dict[str, Tensor]:
        state = torch.load(io.BytesIO(self._bytes(name)), "cpu", weights_only=True)
        if not all(isinstance(value, Tensor) for value in state.values()):
            raise UnsafeError(f"{kind} that are no tensors")
        return dict(state)

    def _tensor(self, kind: str, name: str, payload: Mapping[str, Any], memory: dict[str, bytearray]) -> Tensor:
        if payload["use_pickle"] or payload["tensor_meta"] is None:
            raise UnsafeError(f"{name!r} pickled, as a class of its own")
        file, meta = payload["path_name"], payload["tensor_meta"]
        if file not in memory:
            memory[file] = bytearray(self._bytes(f"data/{kind}/{file}"))
        dtype = DTYPES[meta["dtype"]]
        raw = memory[file]
        stored = torch.frombuffer(raw, dtype=dtype, count=len(raw) // dtype.itemsize) if raw else torch.empty(0)
        size, stride = ([_number(entry) for entry in meta[key]] for key in ("sizes", "strides"))
        if prod(size) > stored.numel() + EXPANDED:
            raise ValueError(f"{name} has {prod(size)} elements, of which {stored.numel()} are stored")
        if not raw:
            return torch.empty(size, dtype=dtype)
        return stored.as_strided(size, stride, _number(meta["storage_offset"]))


def _number(entry: Mapping[str, Any]) -> int:
    number = entry["as_int"]
    if not isinstance(number, int):
        raise TypeError(f"{number!r} is no whole number")
    return number
