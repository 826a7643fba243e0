"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest
import torch

from convsmith.optimize import Settings, run

# A process for each core runs tests: threads of their own would wait for each other, several times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is kept of own code that was named, and of times, away from the home folder; what tests start shares it."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    os.environ["CONVSMITH_LATENCY"] = str(tmp_path_factory.mktemp("latency") / "latency.jsonl")


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """The same random weights in every run and order: a failure is found again."""
    torch.manual_seed(0)


SETTINGS = Settings("own_net:make", "digits", epochs=1)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a small net on the digits; to be read, not written."""
    out = tmp_path_factory.mktemp("run") / "tiny"
    return run(
        SETTINGS, out, runtimes=("eager", "onnxruntime"), seconds=0.05, command="convsmith optimize own_net:make"
    )
