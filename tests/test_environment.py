"""Where a measured number comes from: versions and hardware as plain values."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from convsmith.environment import cpu_model, environment


def test_versions_are_those_installed() -> None:
    versions = environment()["versions"]
    assert versions.pop("python") == platform.python_version()
    assert {"convsmith", "torch", "onnxruntime", "numpy"} <= versions.keys()
    assert versions == {name: version(name) for name in versions}


def test_hardware_is_this_machine() -> None:
    hardware = environment()["hardware"]
    assert hardware["cores"] == os.cpu_count()
    assert hardware["platform"] == platform.platform()
    assert hardware["cpu"]
    assert len(hardware["gpus"]) == torch.cuda.device_count()


def test_is_plain_json() -> None:
    assert json.loads(json.dumps(environment())) == environment()


@pytest.mark.parametrize(
    ("listing", "name"),
    [
        ("processor\t: 0\nmodel name\t: Some CPU: 2 GHz\nflags\t: a b\nmodel name\t: Another\n", "Some CPU: 2 GHz"),
        ("processor\t: 0\nCPU architecture: 8\n", "known to Python"),  # as on ARM
        ("", "known to Python"),
        (None, "known to Python"),
    ],
)
def test_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listing: str | None, name: str) -> None:
    monkeypatch.setattr(platform, "processor", lambda: "known to Python")
    if listing is not None:
        (tmp_path / "cpuinfo").write_text(listing)
    assert cpu_model(tmp_path / "cpuinfo") == name


def test_processor_that_python_does_not_know(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert cpu_model(tmp_path / "cpuinfo") == platform.machine()
