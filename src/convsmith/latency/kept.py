"""Times kept in a file, a line each with what it was measured of and where: the next run reads them."""

import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from convsmith.environment import cpu_model
from convsmith.errors import FileError
from convsmith.target import Target

VARIABLE = "CONVSMITH_LATENCY"  # the environment's name for the file
VERSIONS = ("torch", "onnxruntime")  # what else runs nets is told by the target's name


class Kept:
    """Seconds by what was measured. Lines that are no records, as one cut off at the end, are passed over.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "latency.jsonl"
    >>> Kept(path, {"target": "eager"}).add({"block": "dw-pw"}, 0.25)
    >>> Kept(path, {"target": "eager"}).find({"block": "dw-pw"}), Kept(path, {}).find({"block": "dw-pw"})
    (0.25, None)
    """

    def __init__(self, path: Path, where: Mapping[str, Any]) -> None:
        self._path, self._where = path, dict(where)
        self._known = dict(_lines(path))

    def find(self, what: Mapping[str, Any]) -> float | None:
        """What was measured here; None where it never was."""
        return self._known.get(_key({**self._where, **what}))

    def add(self, what: Mapping[str, Any], seconds: float) -> None:
        """Keep a time; raises ConvsmithError where the file cannot be written."""
        record = {**self._where, **what}
        self._known[_key(record)] = seconds
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record | {"seconds": seconds}) + "\n")
        except OSError as error:
            raise FileError(
                f"{self._path}: times cannot be kept ({error.strerror}); name another file by --latency-file or "
                f"{VARIABLE}."
            ) from error


def default_file() -> Path:
    """Where times are kept unless told: what CONVSMITH_LATENCY names, or a file in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(VARIABLE) or Path(cache) / "convsmith" / "latency.jsonl")


def whereabouts(target: Target) -> dict[str, Any]:
    """What times depend on besides the net: hardware, versions, and the target."""
    on_gpu = target.device.startswith("cuda")
    hardware = torch.cuda.get_device_name(target.device) if on_gpu else cpu_model()
    versions = {name: version(name) for name in VERSIONS}
    return {"hardware": hardware, "versions": versions, **target.to_dict(), "dtype": "float32"}


def _lines(path: Path) -> list[tuple[str, float]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: cannot be read as times of layers ({error}); name another file.") from error
    records = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
            records.append(
                (_key({name: record[name] for name in record if name != "seconds"}), float(record["seconds"]))
            )
        except (ValueError, TypeError, KeyError):  # cut off, or of another program
            continue
    return records


def _key(record: Mapping[str, Any]) -> str:
    return json.dumps(record, sort_keys=True)
