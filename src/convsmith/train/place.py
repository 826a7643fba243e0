"""Where and how precisely a net computes: device, memory layout, autocast, and bringing it back as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from convsmith.errors import ConvsmithError, DataError
from convsmith.text import times


def pick_device(name: str | None) -> torch.device:
    """Give the device of that name, None for the GPU if there is one; raises ConvsmithError when it is not there."""
    cuda = torch.cuda.is_available()
    if name is None:
        return torch.device("cuda" if cuda else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConvsmithError(f"device: {name!r} is unknown; use cpu or cuda.") from error
    if device.type not in ("cpu", "cuda"):
        raise ConvsmithError(f"device: {name!r} is not supported; use cpu or cuda.")
    if device.type == "cuda" and (not cuda or (device.index or 0) >= torch.cuda.device_count()):
        raise ConvsmithError(f"device: {name!r} was asked for, but torch sees no such GPU here; use cpu.")
    return device


def fastest_precision(device: torch.device) -> str:
    """Give bf16 where the hardware multiplies it, else fp32: emulated bf16 is many times slower."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    can = torch.cpu.get_capabilities()
    return "bf16" if any(can.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")) else "fp32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Compute convolutions and products in bfloat16 under "bf16"; do nothing under "fp32"."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def lent(model: nn.Module, device: torch.device, layout: torch.memory_format = torch.preserve_format) -> Iterator[None]:
    """Have a model on a device in a memory layout; at the end it is where it was, contiguous, in its former modes."""
    home = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    modes = [(module, module.training) for module in model.modules()]
    back = layout if layout is torch.preserve_format else torch.contiguous_format
    try:
        model.to(device).to(memory_format=layout)
        yield
    finally:
        model.to(home).to(memory_format=back)
        for module, training in modes:
            module.training = training


def check_fit(model: nn.Module, shape: tuple[int, int, int], classes: int, device: torch.device) -> None:
    """Run a blank image through a model on `device`, in eval mode; raises ConvsmithError when it does not fit."""
    model.eval()
    try:
        with torch.no_grad():
            logits = model(torch.zeros(1, *shape, device=device))
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"The net cannot take images of {times(shape)} ({str(error).splitlines()[0]}); give another input."
        ) from error
    if logits.ndim != 2 or logits.shape[1] != classes:
        got = tuple(logits.shape)
        raise DataError(f"The net gives an output of shape {got}, the data has {classes} classes; change its head.")
