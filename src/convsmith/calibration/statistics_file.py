"""Second moments of a net's layers, kept in one file."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from convsmith.algebra.second_moments import Statistics
from convsmith.errors import FileError
from convsmith.files import whole


def save_statistics(path: Path, statistics: Mapping[str, Statistics], fingerprint: str) -> None:
    """Write the moments of a net's layers to one file, whole or not at all; `fingerprint` tells the net from others."""
    tensors = {
        f"{layer}/{name}": value.contiguous()
        for layer, each in statistics.items()
        for name, value in vars(each).items()
        if isinstance(value, Tensor)
    }
    samples = {layer: each.samples for layer, each in statistics.items()}
    with whole(path) as draft:
        save_file(tensors, draft, metadata={"fingerprint": fingerprint, "samples": json.dumps(samples)})


def load_statistics(path: Path, fingerprint: str) -> dict[str, Statistics]:
    """Read such a file; raises ConvsmithError where it cannot be read or is of another net or version."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is no dictionary
    except (OSError, SafetensorError) as error:
        raise FileError(
            f"{path}: cannot be read as statistics ({error}); remove it, and it is made anew with --data."
        ) from error
    if metadata.get("fingerprint") != fingerprint:
        raise FileError(f"{path}: was made for another net or input; remove it, and it is made anew with --data.")
    names = [field.name for field in fields(Statistics) if field.name != "samples"]
    try:
        return {
            layer: Statistics(**{name: tensors[f"{layer}/{name}"] for name in names}, samples=samples)
            for layer, samples in json.loads(metadata["samples"]).items()
        }
    except KeyError as error:
        raise FileError(
            f"{path}: is of another version of convsmith; remove it, and it is made anew with --data."
        ) from error
