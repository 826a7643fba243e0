"""A checkpoint file read without running any code: safetensors, or torch's, by an explicit list of harmless classes."""

import argparse
import collections
import contextlib
import datetime
import decimal
import errno
import pathlib
import struct
import types
import warnings
from collections.abc import Callable, Mapping
from pickle import UnpicklingError
from typing import Any

import numpy
import torch
from numpy import dtypes
from safetensors import SafetensorError
from safetensors.torch import load_file

from convsmith.errors import ConvsmithError
from convsmith.graph.capture import FORWARD_ERRORS

# What readers are seen to raise on broken bytes; FORWARD_ERRORS are the kinds that Python itself has.
READ_ERRORS: tuple[type[Exception], ...] = (
    *FORWARD_ERRORS, OSError, EOFError, MemoryError, ImportError, struct.error, UnpicklingError, SafetensorError,
)  # fmt: skip
SHOWN = 3  # names in an error


class Kept:
    """Stands for a class that a file names and that is never imported: what it held becomes a plain dictionary."""

    def __new__(cls, *args: Any) -> Any:
        """An empty dictionary of a kind that the loader fills, by items and by attributes."""
        return collections.OrderedDict()


class Row:
    """Stands for a queue, which the loader does not fill: what it held becomes a list."""

    def __new__(cls, *args: Any) -> Any:
        """An empty list."""
        return []


# Classes and functions by the name a file gives them, none of which does more than hold what it is given.
HARMLESS: dict[str, Callable[..., Any]] = {
    "argparse.Namespace": argparse.Namespace,
    "collections.defaultdict": Kept,
    "collections.deque": Row,
    "types.SimpleNamespace": types.SimpleNamespace,
    "datetime.datetime": datetime.datetime,
    "datetime.date": datetime.date,
    "datetime.timedelta": datetime.timedelta,
    "decimal.Decimal": decimal.Decimal,
    "builtins.dict": dict,
    "builtins.list": list,
    "builtins.tuple": tuple,
    "builtins.frozenset": frozenset,
    "builtins.int": int,
    "builtins.float": float,
    "builtins.str": str,
    "builtins.bool": bool,
    "numpy.ndarray": numpy.ndarray,
    "numpy.dtype": numpy.dtype,
    **{f"pathlib.{name}": pathlib.PurePosixPath for name in ("Path", "PosixPath", "PurePath", "PurePosixPath")},
    **{f"pathlib._local.{name}": pathlib.PurePosixPath for name in ("Path", "PosixPath", "PurePath", "PurePosixPath")},
    **{f"pathlib.{name}": pathlib.PureWindowsPath for name in ("WindowsPath", "PureWindowsPath")},
    **{f"numpy.dtypes.{name}": getattr(dtypes, name) for name in dtypes.__all__},
    **{
        f"numpy.{core}.multiarray.{name}": function
        for core in ("core", "_core")
        for name, function in (
            ("scalar", numpy._core.multiarray.scalar),  # type: ignore[attr-defined]
            ("_reconstruct", numpy._core.multiarray._reconstruct),  # type: ignore[attr-defined]
        )
    },
    **dict.fromkeys(
        (
            "pytorch_lightning.utilities.parsing.AttributeDict",
            "lightning.pytorch.utilities.parsing.AttributeDict",
            "lightning_fabric.utilities.data.AttributeDict",
            "lightning.fabric.utilities.data.AttributeDict",
            "omegaconf.dictconfig.DictConfig",
            "omegaconf.listconfig.ListConfig",
            "omegaconf.base.ContainerMetadata",
            "omegaconf.base.Metadata",
            "omegaconf.nodes.AnyNode",
            "mmengine.config.config.ConfigDict",
            "mmengine.logging.history_buffer.HistoryBuffer",
            "addict.addict.Dict",
            "easydict.EasyDict",
            "yacs.config.CfgNode",
            "fvcore.common.config.CfgNode",
            "ml_collections.config_dict.config_dict.ConfigDict",
            "typing.Any",
        ),
        Kept,
    ),
}


def read_checkpoint(path: pathlib.Path) -> Any:
    """What a .safetensors, .pth, .pt, .ckpt or .bin file holds, tensors on the CPU.

    Files of torch are read by its `weights_only` loader, with the classes of HARMLESS allowed beside tensors.
    Raises ConvsmithError when the file is missing, broken, or holds anything else, naming what that is.
    """
    if not path.is_file():
        raise ConvsmithError(f"{path}: no such weights file; check the path.")
    try:
        if _is_safetensors(path):
            return load_file(path)
        allowed: list[Any] = [(entry, name) for name, entry in HARMLESS.items()]
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what old files are made of
            return torch.load(path, "cpu", weights_only=True)
    except READ_ERRORS as error:
        raise ConvsmithError(f"{path}: not a readable weights file ({_why(path, error)}).") from error


def _is_safetensors(path: pathlib.Path) -> bool:
    """By name, or as safetensors opens: eight bytes of a length, then a JSON object."""
    if path.suffix.lower() == ".safetensors":
        return True
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _why(path: pathlib.Path, error: Exception) -> str:
    if path.stat().st_size == 0:
        return "it is empty; copy or write it again"
    if "TorchScript" in str(error):
        return "it is TorchScript, which holds code; save model.state_dict() and give that file"
    if refusal := refused(path):
        shown = ", ".join(refusal[:SHOWN]) + (f" and {len(refusal) - SHOWN} more" if len(refusal) > SHOWN else "")
        return f"it holds {shown}, which is code to be run; save model.state_dict() and give that file"
    text = next(filter(None, (line.strip() for line in str(error).splitlines())), "")
    senseless = isinstance(error, KeyError) or (isinstance(error, OSError) and error.errno == errno.EINVAL)
    if senseless or not text:  # bytes that pickle has no meaning for, or that end before an archive's own table
        text = "its bytes are no state dict, or not all of them are there"
    return f"{text.rstrip('.')[:150]}; give a .safetensors file, or a .pth file of model.state_dict()"


def refused(path: pathlib.Path) -> list[str]:
    """The classes and functions a torch file names that the list does not allow, sorted."""
    with contextlib.suppress(*READ_ERRORS):
        return sorted(set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) - HARMLESS.keys())
    return []


def mappings(raw: Any, name: str = "", depth: int = 4) -> list[tuple[str, Mapping[Any, Any]]]:
    """All dictionaries in a checkpoint that hold tensors, with the names that lead to each, outermost first.

    >>> [name for name, _ in mappings({"epoch": 3, "model": {"state_dict": {"weight": torch.ones(1)}}})]
    ['model.state_dict']
    """
    if not isinstance(raw, Mapping):
        return []
    here = [(name, raw)] if any(isinstance(value, torch.Tensor) for value in raw.values()) else []
    inner = [
        mapping
        for key, value in raw.items()
        if depth and isinstance(key, str)
        for mapping in mappings(value, f"{name}.{key}".lstrip("."), depth - 1)
    ]
    return here + inner
