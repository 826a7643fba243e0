"""Analyze every convolutional net of timm and torchvision: `python bench/coverage.py [--resume] [PATTERN ...]` writes
bench/results/coverage.json.

Nets are built without weights on the meta device and analyzed at their default size, one after another in one process.
A net counts that has at least two convolutions: one alone is a transformer's cut into patches. `--resume` keeps what
the result file has; patterns (`timm/res*`) choose nets, whose records then replace the file's.
"""

import json
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Any

import timm
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

import convsmith as cs
from convsmith.environment import environment
from convsmith.files import write_text

RESULT = Path(__file__).parent / "results" / "coverage.json"
LIMIT = 120  # seconds a net
CONVOLUTIONS = 2  # at least


@dataclass(frozen=True)
class Subject:
    """A net to be built, and its input (channels, *map) where the net itself does not say."""

    name: str
    build: Callable[[], nn.Module]
    input: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Finding:
    """What came of a net: analyzed, refused with a reason, or failed with an error."""

    name: str
    outcome: str
    reason: str = ""
    input: tuple[int, ...] = ()
    calls: int = 0
    unknown_ops: dict[str, int] | None = None
    macs: int = 0
    counter_macs: int = 0
    capture_seconds: float = 0.0
    score_seconds: float = 0.0
    seconds: float = 0.0


class OutOfTimeError(BaseException):
    """A net took longer than the limit; no net's own handlers are to catch it."""


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def subjects() -> Iterator[Subject]:
    for name in timm.list_models():
        yield Subject(f"timm/{name}", lambda name=name: timm.create_model(name, pretrained=False))
    for name in models.list_models(module=models):
        size = 299 if name == "inception_v3" else 224
        yield Subject(f"torchvision/{name}", _torchvision(name), (3, size, size))
    for name in models.list_models(module=models.segmentation):
        yield Subject(f"torchvision/segmentation/{name}", _torchvision(name, weights_backbone=None), (3, 520, 520))
    for name in models.list_models(module=models.detection):
        build = _torchvision(name, weights_backbone=None)
        yield Subject(f"torchvision/detection/{name}", lambda build=build: build().backbone, (3, 320, 320))
    for name in models.list_models(module=models.video):
        yield Subject(f"torchvision/video/{name}", _torchvision(name), (3, 16, 224, 224))


def _torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: models.get_model(name, weights=None, **options)


def main(arguments: list[str]) -> None:
    patterns = [argument for argument in arguments if argument != "--resume"]
    kept = {f["name"]: f for f in json.loads(RESULT.read_text())["nets"]} if patterns or "--resume" in arguments else {}
    for subject in subjects():
        wanted = any(fnmatch(subject.name, pattern) for pattern in patterns)
        if (patterns and wanted) or (not patterns and subject.name not in kept):
            finding = examine(subject)
            if finding.outcome == "failed" or finding.unknown_ops:
                print(finding.name, finding.reason or finding.unknown_ops, flush=True)
            kept[subject.name] = asdict(finding)
            if len(kept) % 50 == 0:
                save(list(kept.values()))
    print(json.dumps(save(list(kept.values())), indent=1))


def examine(subject: Subject) -> Finding:
    began = perf_counter()
    try:
        with within(LIMIT):
            return analyzed(subject, began)
    except OutOfTimeError:
        return Finding(subject.name, "failed", f"longer than {LIMIT} s", seconds=perf_counter() - began)
    except cs.ConvsmithError as error:
        return Finding(subject.name, "refused", str(error), seconds=round(perf_counter() - began, 3))
    except Exception as error:  # a net that fails is what is looked for; the run goes on
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        return Finding(subject.name, "failed", reason, seconds=round(perf_counter() - began, 3))


def analyzed(subject: Subject, began: float) -> Finding:
    model = built(subject).eval().requires_grad_(False)  # torch's counter hooks gradients
    shape = subject.input or tuple(model.default_cfg["input_size"])
    if sum(isinstance(module, _ConvNd) for module in model.modules()) < CONVOLUTIONS:
        return Finding(subject.name, "not convolutional")
    x = torch.empty(1, *shape, device="meta")
    start = perf_counter()
    graph = cs.capture(model, x)
    captured = perf_counter()
    scores = cs.score(graph)
    scored = perf_counter()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return Finding(
        subject.name, "analyzed", "", shape, len(graph.nodes), dict(scores.unknown_ops), graph.macs,
        counter.get_total_flops() // 2, round(captured - start, 3), round(scored - captured, 3),
        round(perf_counter() - began, 3),
    )  # fmt: skip


def built(subject: Subject) -> nn.Module:
    """Without weights; nets that read values as they are built get some first."""
    try:
        with torch.device("meta"):
            return subject.build()
    except (NotImplementedError, RuntimeError):
        return subject.build().to("meta")


def save(nets: list[dict[str, Any]]) -> dict[str, Any]:
    nets = [net for net in nets if net["outcome"] != "not convolutional"]
    told = [net for net in nets if net["outcome"] == "analyzed"]
    totals = {
        "nets": len(nets),
        "analyzed": len(told),
        "refused": sum(net["outcome"] == "refused" for net in nets),
        "failed": sum(net["outcome"] == "failed" for net in nets),
        "without unknown ops": sum(not net["unknown_ops"] for net in told),
        "MACs equal FlopCounterMode's, halved": sum(net["macs"] == net["counter_macs"] for net in told),
        "slowest score, seconds": max((net["score_seconds"] for net in told), default=0),
        "seconds, all nets": round(sum(net["seconds"] for net in nets), 1),
    }
    unknown = sorted({op for net in told for op in net["unknown_ops"]})
    record = {
        "what": "convsmith.capture and convsmith.score of every convolutional net of timm and torchvision",
        "totals": totals, "unknown ops": unknown, **environment(), "nets": nets,
    }  # fmt: skip
    write_text(RESULT, json.dumps(record, indent=1) + "\n")
    return totals


if __name__ == "__main__":
    main(sys.argv[1:])
