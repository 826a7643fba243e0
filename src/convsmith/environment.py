"""Versions and hardware: where a measured number comes from, for every result file to carry."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("convsmith", "torch", "torchvision", "timm", "onnx", "onnxruntime", "onnxscript", "numpy")


def environment() -> dict[str, dict[str, Any]]:
    """Versions of Python and the packages that numbers depend on, and the hardware, as plain JSON values.

    >>> sorted(environment())
    ['hardware', 'versions']
    """
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "hardware": {"cpu": cpu_model(), "cores": os.cpu_count(), "gpus": gpus, "platform": platform.platform()},
    }


def cpu_model(listing: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name from Linux's listing; where that has none (ARM, other systems), what Python knows."""
    lines = listing.read_text().splitlines() if listing.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
