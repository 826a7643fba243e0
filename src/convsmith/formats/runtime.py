"""ONNX Runtime on a file, and what it and torch raise, told in one line."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

ORT_ERRORS: tuple[type[Exception], ...] = (
    ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.InvalidGraph, ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile, ort_errors.NotImplemented, ort_errors.RuntimeException,
)  # fmt: skip


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Open an ONNX file in ONNX Runtime on `threads` threads of the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only
    # A session's threads spin on after a run and take the cores from the next session: two VGG16 run in turn, batch 1
    # on 2 threads, took 8.9 ms each where one alone took 4.2; stopped at the end of each run, both take 4.9.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch from logging the stack trace of a failure that the user is told in one sentence."""
    log = logging.getLogger("torch")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)


def reason(error: BaseException) -> str:
    """The first line of the error at the root, which names the operator or the shape that is at fault."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__).rstrip(".:")
