"""Weights from a file into a model: tensors only, every key told that does not fit, and what was left out."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from convsmith.errors import FileError
from convsmith.load.checkpoint import SHOWN, mappings, read_checkpoint
from convsmith.load.keys import Found, find_state
from convsmith.text import times


def load_weights(model: nn.Module, path: Path) -> tuple[str, ...]:
    """Write the state dict in a .safetensors, .pth, .pt or .ckpt file into `model`; pickled code is never run.

    The dictionary may lie in others, as training scripts write it, and its keys may have a common prefix. What is told
    comes back: which of several dictionaries was taken, and what was left out as no weight.
    Raises ConvsmithError when the file is missing or unreadable, and when keys, shapes or kinds of number do not fit.
    On NaN and infinity it names the keys. The model is then as it was.
    """
    want = {key: tensor for key, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    found = read_state(path, want)
    state = found.state
    missing = [key for key in want.keys() - state.keys() if not key.endswith("num_batches_tracked")]
    _refuse(path, "missing in the file", missing, f"; the file has {_some([*state])}" if missing else "")
    _refuse(path, "not in the model", [*(state.keys() - want.keys())])
    shapes = [f"{key} ({_size(state[key])}, not {_size(want[key])})" for key in want.keys() & state.keys()
              if _size(state[key]) != _size(want[key])]  # fmt: skip
    if shapes:
        raise _misfit(path, _some(shapes))
    if faults := [*_unfit(state, want)]:
        raise FileError(f"{path}: {'; '.join(faults[:SHOWN])}; give a checkpoint of finite float weights.")
    model.load_state_dict(state, strict=False)  # strict but for the batch counters, which old files lack
    return found.notes


def read_state(path: Path, wanted: Mapping[str, Tensor]) -> Found:
    """The tensors of a weights file by the keys that a model has for them, on the CPU."""
    raw = read_checkpoint(path)
    candidates = mappings(raw)
    if not candidates:
        inside = f" (it has {_some([*map(str, raw)])})" if isinstance(raw, Mapping) and raw else ""
        raise FileError(f"{path}: holds no state dict{inside}; save model.state_dict() and give that file.")
    found = find_state(candidates, wanted.keys())
    if found is None:
        keys = _some([repr(key) for key in candidates[0][1]])
        raise FileError(f"{path}: holds no state dict: its keys are no names ({keys}); save model.state_dict().")
    return found


def _refuse(path: Path, what: str, keys: list[str], more: str = "") -> None:
    if keys:
        raise _misfit(path, f"{_some(keys)} {'is' if len(keys) == 1 else 'are'} {what}{more}")


def _misfit(path: Path, why: str) -> FileError:
    return FileError(
        f"{path}: does not fit the model: {why}; give weights of this net, with the classes and input it is built for "
        "(--classes, --input)."
    )


def _unfit(state: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> Iterator[str]:
    """What no model should be given: other kinds of number, no values at all, NaN and infinity."""
    for key in sorted(want.keys() & state.keys()):
        got, own = state[key], want[key]
        if got.device.type == "meta":
            yield f"{key} has a shape and no values (it was saved from the meta device)"
        elif got.layout != torch.strided or got.is_quantized:
            yield f"{key} is {'quantized' if got.is_quantized else 'sparse'}"
        elif _kind(got) != _kind(own):
            yield f"{key} is {_dtype(got)}, not {_dtype(own)}"
        elif fault := _not_finite(got, own):
            yield f"{key} holds {fault}"


def _kind(tensor: Tensor) -> str:
    """Numbers of one kind are carried into each other; fp8 is none of them, as it goes with scales of its own."""
    if tensor.is_floating_point():
        return "float" if tensor.dtype.itemsize > 1 else str(tensor.dtype)
    return "complex" if tensor.is_complex() else "whole" if tensor.dtype != torch.bool else "truth"


def _not_finite(got: Tensor, own: Tensor) -> str:
    """NaN, what is infinite in the model's type, and infinity where the model's own tensor has none (masks do)."""
    if not (got.is_floating_point() or got.is_complex()):
        return ""
    wild = int((~torch.isfinite(got)).sum())
    if not wild:
        over = int((~torch.isfinite(got.to(own.dtype))).sum())
        return f"{over} of {got.numel()} values too large for {_dtype(own)}" if over else ""
    nan = int(torch.isnan(got).sum())
    if not nan and own.device.type != "meta" and bool(torch.isinf(own).any()):
        return ""
    return f"{nan} NaN of {got.numel()} values" if nan else f"{wild} infinite of {got.numel()} values"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _some(keys: list[str]) -> str:
    shown = ", ".join(sorted(keys)[:SHOWN])
    return shown if len(keys) <= SHOWN else f"{shown} and {len(keys) - SHOWN} more"


def _size(tensor: Tensor) -> str:
    if nn.parameter.is_lazy(tensor):
        return "not yet known"
    if tensor.is_nested:
        return "several tensors in one"
    return times(tensor.shape) or "a scalar"
