"""What the commands take: each option told once, and read from text once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from convsmith.errors import ConvsmithError

T = TypeVar("T")


def _reads(read: Callable[[str], T], example: str) -> Callable[[str], T]:
    """A parser for typer that tells what was expected; wrong usage ends with status 2."""

    def parse(text: str) -> T:
        try:
            return read(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} cannot be read; write it like {example}.") from None

    return parse


def _positive(values: list[int]) -> tuple[int, ...]:
    if min(values) < 1:
        raise ValueError
    return tuple(values)


def _shape(text: str) -> tuple[int, ...]:
    values = _positive([int(part) for part in text.split(",")])
    if len(values) != 3:
        raise ValueError
    return values


def _integers(text: str) -> tuple[int, ...]:
    return _positive([int(part) for part in text.split(",")])


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


@dataclass(frozen=True)
class Limit:
    """A budget: `factor` times the base's own value, or `absolute`."""

    factor: float | None
    absolute: float | None

    def times(self, base: float) -> float:
        """As a multiple of the base's value; a hair above it, so that rounding never refuses an exact fit."""
        return self.factor if self.factor is not None else (self.absolute or 0.0) / base * (1 + 1e-12)


def read_limit(text: str) -> Limit:
    """Read `1.2x` as a multiple, and `300M`, `1.5G`, `250k` or a plain number as an absolute value.

    >>> read_limit("1.2x"), read_limit("300M").absolute
    (Limit(factor=1.2, absolute=None), 300000000.0)
    """
    unit = {"k": 1e3, "m": 1e6, "g": 1e9, "x": 1.0}.get(text[-1:].lower())
    number = float(text[:-1] if unit else text) * (unit or 1.0)
    if not (isfinite(number) and number > 0):
        raise ValueError
    return Limit(number, None) if text[-1:].lower() == "x" else Limit(None, number)


def read_time_limit(text: str) -> Limit:
    """Read `0.8x` as a multiple, and `5ms` as seconds.

    >>> read_time_limit("5ms")
    Limit(factor=None, absolute=0.005)
    """
    if text.lower().endswith("ms"):
        return Limit(None, _absolute(text[:-2]) / 1e3)
    return Limit(_factor(text), None)


def read_overrides(texts: Sequence[str]) -> dict[str, str]:
    """Read `LAYER=BLOCK` as a layer and the block that it becomes.

    >>> read_overrides(["layer1.0.conv1=dw-pw:r=2"])
    {'layer1.0.conv1': 'dw-pw:r=2'}
    """
    pairs = [text.partition("=") for text in texts]
    for text, (layer, _, block) in zip(texts, pairs, strict=True):
        if not (layer and block):
            raise ConvsmithError(f"--override: {text!r} cannot be read; write it like layer1.0.conv1=dw-pw:r=2.")
    return {layer: block for layer, _, block in pairs}


def _absolute(text: str) -> float:
    limit = read_limit(text)
    if limit.absolute is None:
        raise ValueError
    return limit.absolute


def _factor(text: str) -> float:
    limit = read_limit(text)
    if limit.factor is None:
        raise ValueError
    return limit.factor


Reference = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A zoo name, timm:NAME, torchvision:NAME, package.module:factory, or a folder that convsmith wrote; "
        "analyze and bench also take .onnx and .pt2 files.",
    ),
]
Input = Annotated[
    Any, typer.Option("--input", metavar="C,H,W", parser=_reads(_shape, "3,32,32"), help="Shape of one image.")
]
Classes = Annotated[int | None, typer.Option("--classes", min=1, help="Outputs of the head.")]
Depths = Annotated[
    Any,
    typer.Option(
        "--blocks-per-stage", metavar="N,N,..", parser=_reads(_integers, "5,4,2,1,1"), help="Depths (zoo nets)."
    ),
]
Mean = Annotated[
    Any, typer.Option("--mean", metavar="R,G,B", parser=_reads(_floats, "0.5,0.5,0.5"), help="Image mean per channel.")
]
Std = Annotated[
    Any,
    typer.Option("--std", metavar="R,G,B", parser=_reads(_floats, "0.2,0.2,0.2"), help="Image deviation per channel."),
]
Weights = Annotated[Path | None, typer.Option("--weights", metavar="FILE", help="A .safetensors or .pth state dict.")]
DataSet = Annotated[
    str,
    typer.Option("--data", help="digits, cifar10:PATH, cifar100:PATH, imagefolder:PATH, a parquet folder, or timm's."),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Images to fit responses on: images:PATH, a folder of files without labels, or named as for train.",
    ),
]
Images = Annotated[int, typer.Option("--images", min=1, help="How many of them.")]
Stats = Annotated[
    Path | None,
    typer.Option("--stats", metavar="FILE", help="Moments of layers: written with --data where missing, else read."),
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write.")]
Json = Annotated[
    str | None, typer.Option("--json", metavar="PATH", help="Write the result as JSON; - for stdout alone.")
]
PlanFile = Annotated[Path | None, typer.Option("-o", "--output", metavar="plan.json", help="Write the plan.")]
MaxMacs = Annotated[
    Any,
    typer.Option(
        "--max-macs", metavar="1.2x", parser=_reads(read_limit, "1.2x or 300M"), help="Limit on the new net's MACs."
    ),
]
MaxParams = Annotated[
    Any,
    typer.Option(
        "--max-params", metavar="1x", parser=_reads(read_limit, "0.8x or 5M"), help="Limit on its parameters."
    ),
]
MaxLatency = Annotated[
    Any,
    typer.Option(
        "--max-latency",
        metavar="0.8x",
        parser=_reads(read_time_limit, "0.8x or 5ms"),
        help="Limit on its measured latency: one image, eager, on this machine.",
    ),
]
Factor = Annotated[
    Any,
    typer.Option(
        "--max-macs", metavar="0.5x", parser=_reads(_factor, "0.5x"), help="Limit as a multiple of the baseline's."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--override", metavar="LAYER=BLOCK", help="A layer's own block, whatever the others become."),
]
BlockName = Annotated[str, typer.Option("--block", help="auto, or a block such as dw-pw:r=2 or dw-rpw:g=2,o=0.5.")]
Epochs = Annotated[int | None, typer.Option("--epochs", min=0, help="Training epochs (default: what suits the data).")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu or cuda (default: cuda where there is one).")]
Formats = Annotated[str, typer.Option("--format", metavar="onnx,pt2", help="File formats to export.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show warnings, and the trace of an error.")]
