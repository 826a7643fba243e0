"""Analyze every convolutional net of timm, torchvision and segmentation-models-pytorch.

`python bench/coverage.py [--resume] [PATTERN ...]` writes bench/results/coverage.json. Nets are built without weights
on the meta device and analyzed at their default size, one after another in one process. Whole detectors get weights
that are drawn, and small images: they run on numbers. Of segmentation-models-pytorch encoders meet decoders on maps of
64 pixels, or the least that a decoder takes; pairs that it refuses to build itself are left out. A net counts that has
at least two convolutions: one alone is a transformer's cut into patches. `--resume` keeps what the result file has;
patterns (`timm/res*`) choose nets, whose records then replace the file's.
"""

import json
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from segmentation_models_pytorch.encoders import get_encoder_names
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

import convsmith as cs
from convsmith.environment import environment
from convsmith.files import write_text

RESULT = Path(__file__).parent / "results" / "coverage.json"
LIMIT = 120  # seconds of processor time a net
CONVOLUTIONS = 2  # at least
# Encoders that segmentation-models-pytorch takes from timm: its own list leaves them out.
OF_TIMM = ("tu-resnet18", "tu-convnext_tiny", "tu-mobilenetv4_conv_small", "tu-efficientvit_b0", "tu-hrnet_w18")
SIDES = {"dpt": 224, "pan": 128}
TRANSFORMERS = ("tu-vit_tiny_patch16_224", "tu-vit_small_patch16_224", "tu-deit_tiny_patch16_224")


COUNTED: dict[str, Callable[[dict[str, Any]], bool]] = {
    "nets": lambda net: True,
    "analyzed": lambda net: net["outcome"] == "analyzed",
    "on numbers": lambda net: net["on_numbers"],
    "followed to the end": lambda net: net["outcome"] == "analyzed" and not net["unknown_ops"],
    "MACs equal torch's": lambda net: net["outcome"] == "analyzed" and net["macs"] == net["counter_macs"],
}


@dataclass(frozen=True)
class Subject:
    """A net to be built, and its input (channels, *map) where the net itself does not say."""

    name: str
    build: Callable[[], nn.Module]
    input: tuple[int, ...] | None = None
    detects: bool = False  # reads a list of images, and their values


@dataclass(frozen=True)
class Finding:
    """What came of a net: analyzed, refused with a reason, failed with an error, or not built by its own library."""

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
    on_numbers: bool = False
    torch: str = torch.__version__


class OutOfTimeError(BaseException):
    """A net took longer than the limit; no net's own handlers are to catch it."""


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def subjects() -> Iterator[Subject]:
    for name in timm.list_models():
        yield Subject(f"timm/{name}", lambda name=name: timm.create_model(name, pretrained=False))
    for name in models.list_models(module=models):
        size = 299 if name == "inception_v3" else 224
        yield Subject(f"torchvision/{name}", _torchvision(name), (3, size, size))
    for name in models.list_models(module=models.segmentation):
        yield Subject(f"torchvision/segmentation/{name}", _torchvision(name, weights_backbone=None), (3, 520, 520))
    for name in models.list_models(module=models.detection):
        yield Subject(f"torchvision/detection/{name}", _torchvision(name, **_small(name)), (3, 96, 96), detects=True)
    for name in models.list_models(module=models.video):
        yield Subject(f"torchvision/video/{name}", _torchvision(name), (3, 16, 224, 224))
    for name in models.list_models(module=models.quantization):
        size = 299 if "inception" in name else 224
        yield Subject(f"torchvision/quantization/{name}", _torchvision(name, quantize=False), (3, size, size))
    yield from _segmentation()


def _small(name: str) -> dict[str, Any]:
    """What keeps a detector's images small; those of fixed size have none."""
    return {"weights_backbone": None} | ({} if name.startswith("ssd") else {"min_size": 96, "max_size": 96})


def _segmentation() -> Iterator[Subject]:
    for decoder in smp.MODEL_ARCHITECTURES_MAPPING:
        for encoder in TRANSFORMERS if decoder == "dpt" else (*get_encoder_names(), *OF_TIMM):
            side = SIDES.get(decoder, 64)
            build = partial(smp.create_model, decoder, encoder_name=encoder, encoder_weights=None)
            yield Subject(f"smp/{decoder}/{encoder}", build, (3, side, side))


def _torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: models.get_model(name, weights=None, **options)


def main(arguments: list[str]) -> None:
    patterns = [argument for argument in arguments if argument != "--resume"]
    kept = read() if patterns or "--resume" in arguments else {}
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


def read() -> dict[str, dict[str, Any]]:
    """The file's records by name; those of before carry the file's torch."""
    told = json.loads(RESULT.read_text())
    return {net["name"]: {"on_numbers": False, "torch": told["versions"]["torch"]} | net for net in told["nets"]}


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
    try:
        model = built(subject).eval().requires_grad_(False)  # torch's counter hooks gradients
    except (ValueError, NotImplementedError, TypeError, AssertionError) as error:
        return Finding(subject.name, "not built", str(error).partition("\n")[0])
    shape = subject.input or tuple(model.default_cfg["input_size"])
    if sum(isinstance(module, _ConvNd) for module in model.modules()) < CONVOLUTIONS:
        return Finding(subject.name, "not convolutional")
    x: Any = torch.empty(1, *shape, device="meta")
    if subject.detects:
        x = [torch.rand(shape, generator=torch.Generator().manual_seed(0))]
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
        round(perf_counter() - began, 3), bool(graph.notes),
    )  # fmt: skip


def built(subject: Subject) -> nn.Module:
    """Without weights; nets that read values as they are built get some first, and detectors keep theirs."""
    if subject.detects:
        torch.manual_seed(0)
        return subject.build()
    try:
        with torch.device("meta"):
            return subject.build()
    except (NotImplementedError, RuntimeError):
        return subject.build().to("meta")


def families(nets: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """How many nets of each family there are, analyzed, run on numbers, and with MACs as torch counts them."""
    counts: dict[str, dict[str, int]] = {}
    for net in nets:
        family = counts.setdefault(net["name"].rpartition("/")[0], dict.fromkeys(COUNTED, 0))
        for count, holds in COUNTED.items():
            family[count] += holds(net)
    return counts


def save(nets: list[dict[str, Any]]) -> dict[str, Any]:
    nets = [net for net in nets if net["outcome"] not in ("not convolutional", "not built")]
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
        "what": "convsmith.capture and convsmith.score of convolutional nets of timm, torchvision and "
        "segmentation-models-pytorch",
        "totals": totals, "families": families(nets), "unknown ops": unknown, **environment(), "nets": nets,
    }  # fmt: skip
    write_text(RESULT, json.dumps(record, indent=1) + "\n")
    return totals


if __name__ == "__main__":
    main(sys.argv[1:])
