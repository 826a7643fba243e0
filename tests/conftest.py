"""Fixtures that several test files share."""

from pathlib import Path

import pytest

from convsmith.optimize import Settings, optimize

SETTINGS = Settings("own_net:make", "digits", epochs=1)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a small net on the digits; to be read, not written."""
    out = tmp_path_factory.mktemp("run") / "tiny"
    return optimize(
        SETTINGS, out, runtimes=("eager", "onnxruntime"), seconds=0.05, command="convsmith optimize own_net:make"
    )
