"""Weights from a file into a model: tensors only, and every key told that does not fit."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from convsmith.errors import FileError
from convsmith.text import times

SHOWN = 3  # keys named in an error
WRAPPERS = ("state_dict", "model", "model_state_dict", "net")  # under which training scripts nest the weights
PREFIX = "module."  # what DataParallel puts before every key


def load_weights(model: nn.Module, path: Path) -> None:
    """Write the state dict in a .safetensors, .pth or .pt file into `model`; pickled code is never run.

    Raises ConvsmithError when the file is missing or unreadable, and when keys or shapes do not fit, naming them.
    """
    state = read_state(path)
    want = model.state_dict()
    wrong = [f"{key} is {_size(state[key])}, not {_size(want[key])}" for key in want.keys() & state.keys()
             if state[key].shape != want[key].shape]  # fmt: skip
    missing = [key for key in want.keys() - state.keys() if not key.endswith("num_batches_tracked")]
    for what, keys in (
        ("missing in the file", missing),
        ("not in the model", [*(state.keys() - want.keys())]),
        ("of another shape", wrong),
    ):
        if keys:
            raise FileError(
                f"{path}: does not fit the model: {_some(keys)} {'is' if len(keys) == 1 else 'are'} {what}; "
                "check the model's name, --classes and --input."
            )
    model.load_state_dict(state, strict=False)  # strict but for the batch counters, which old files lack


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by key, unwrapped, on the CPU."""
    if not path.is_file():
        raise FileError(f"{path}: no such weights file; check the path.")
    try:
        raw = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, ValueError, EOFError, OSError, KeyError) as error:
        raise FileError(
            f"{path}: not a readable weights file ({str(error).splitlines()[0]}); "
            "give a .safetensors file, or a .pth file that holds tensors only."
        ) from error
    return _tensors(raw, path)


def _tensors(raw: Any, path: Path) -> dict[str, Tensor]:
    for key in WRAPPERS:
        raw = raw[key] if isinstance(raw, Mapping) and isinstance(raw.get(key), Mapping) else raw
    if not isinstance(raw, Mapping) or not raw or not all(isinstance(value, Tensor) for value in raw.values()):
        raise FileError(f"{path}: holds no state dict; save model.state_dict() and give that file.")
    prefixed = all(key.startswith(PREFIX) for key in raw)
    return {key.removeprefix(PREFIX) if prefixed else key: tensor for key, tensor in raw.items()}


def _some(keys: list[str]) -> str:
    shown = ", ".join(sorted(keys)[:SHOWN])
    return shown if len(keys) <= SHOWN else f"{shown} and {len(keys) - SHOWN} more"


def _size(tensor: Tensor) -> str:
    return times(tensor.shape) or "a scalar"
