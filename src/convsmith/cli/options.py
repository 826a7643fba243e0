"""What the commands take: each option told once, and read from text once."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from convsmith.errors import ConvsmithError
from convsmith.limits import read_limit

T = TypeVar("T")

# What the planner and the metric take, told here again: importing them takes seconds, and wrong usage is told before.
Convention = Literal["published", "exact"]
Counting = Literal["plain", "ptflops"]
Objective = Literal["gain", "value"]
Rank = Literal["macs", "params", "latency"]


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
    values = _integers(text)
    if not 2 <= len(values) <= 4:
        raise ValueError
    return values


def _shapes(text: str) -> Any:
    """The shape of one image; or of several inputs: a dictionary by name, a tuple in order.

    >>> _shapes("3,8,8"), _shapes("left=3,8,8;scale=1"), _shapes("3,8,8;1,8,8")
    ((3, 8, 8), {'left': (3, 8, 8), 'scale': (1,)}, ((3, 8, 8), (1, 8, 8)))
    """
    parts = [part.rpartition("=") for part in text.split(";") if part.strip()]
    names = [name.strip() for name, _, _ in parts]
    if not any(names):
        return _shape(text) if len(parts) == 1 else tuple(_integers(shape) for _, _, shape in parts)
    if not all(name.isidentifier() for name in names) or len({*names}) < len(names):
        raise ValueError
    return {name: _integers(shape) for name, (_, _, shape) in zip(names, parts, strict=True)}


def require_image(reference: str | None, shape: Any) -> None:
    """Nets of the zoo, which have bare names, read images alone: any other shape is wrong usage, with status 2."""
    name = (reference or "").removeprefix("zoo:")
    image = isinstance(shape, tuple) and len(shape) == 3 and isinstance(shape[0], int)
    if shape is not None and not image and name.isidentifier() and not Path(name).exists():
        told = ",".join(map(str, shape))
        raise typer.BadParameter(
            f"{told!r} is no image, which {reference} reads; write it like 3,32,32.", param_hint="'--input'"
        )


def _integers(text: str) -> tuple[int, ...]:
    return _positive([int(part) for part in text.split(",")])


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _limit(name: str) -> Callable[[str], str]:
    """A limit as it was written, once it is seen that it can be read."""

    def parse(text: str) -> str:
        try:
            read_limit(text, name)
        except ConvsmithError as error:
            raise typer.BadParameter(str(error)) from None
        return text

    return parse


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


ConventionName = Annotated[Convention, typer.Option("--convention", help="The paper's counting, or the exact reach.")]
ObjectiveName = Annotated[
    Objective, typer.Option("--by", help="What to have most of: gain, or value, the sum of gain^(1/4).")
]
Alpha = Annotated[float, typer.Option("--alpha", min=0, help="How fast gain fades as the map fills.")]
Clamp = Annotated[bool, typer.Option("--clamp", help="Stop the side at the map's (published convention).")]
CountingName = Annotated[Counting, typer.Option("--count", help="Multiplications alone, or what ptflops counts.")]
Reference = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A zoo name, timm:NAME, torchvision:NAME, package.module:factory, path/file.py:factory, or a folder that "
        "convsmith wrote; analyze and bench also take .onnx and .pt2 files.",
    ),
]
Input = Annotated[
    Any,
    typer.Option(
        "--input",
        metavar="C,H,W",
        parser=_reads(_shapes, "3,32,32 or, for several inputs, left=3,64,64;right=3,64,64"),
        help="Shape of one image (C,L or C,D,H,W for nets of one or three dimensions). Of several inputs "
        '"NAME=C,H,W;NAME=C,H,W", by the arguments of forward, or without names in order.',
    ),
]
Classes = Annotated[int | None, typer.Option("--classes", min=1, help="Outputs of the head.")]
Batches = Annotated[
    Any,
    typer.Option(
        "--batches", metavar="1,32", parser=_reads(_integers, "1,32"), help="Batch sizes (default: 1,32 or the file's)."
    ),
]
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
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="A folder or .pt2 file is yours: loading it may run any code that it names or holds.",
    ),
]
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
Judging = Annotated[
    str | None,
    typer.Option("--data", help="Images that tell what blocks of a trained net count: images:PATH, or as for train."),
]
Quantized = Annotated[
    str | None,
    typer.Option("--data", help="With --int8: images to calibrate on, images:PATH, or named as for train."),
]
Images = Annotated[int, typer.Option("--images", min=1, help="How many of them.")]
RefitSteps = Annotated[
    int,
    typer.Option("--refit-steps", metavar="N", min=0, help="With images, steps that refit all weights jointly."),
]
Stats = Annotated[
    Path | None,
    typer.Option(
        "--stats",
        metavar="FILE",
        help="Statistics of layers: written with --data where the file is missing, else read.",
    ),
]
Out = Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder to write.")]
OutOrModels = Annotated[
    Path | None, typer.Option("-o", "--out", metavar="DIR", help="Folder to write (default: the model's).")
]
Int8 = Annotated[bool, typer.Option("--int8", help="Write model.int8.onnx too: 8-bit integers, calibrated on --data.")]
Json = Annotated[
    str | None, typer.Option("--json", metavar="PATH", help="Write the result as JSON; - for stdout alone.")
]
PlanFile = Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write the plan.")]
MaxMacs = Annotated[
    Any,
    typer.Option("--max-macs", metavar="1.2x", parser=_limit("max_macs"), help="Limit on the new net's MACs."),
]
MaxParams = Annotated[
    Any,
    typer.Option("--max-params", metavar="1x", parser=_limit("max_params"), help="Limit on its parameters."),
]
Width = Annotated[
    bool | None,
    typer.Option(
        "--width/--no-width",
        help="With data, leave groups of channels fewer of them (default: under --max-latency, or where ranks fail).",
    ),
]
Depth = Annotated[
    bool | None,
    typer.Option("--depth/--no-depth", help="With data, take units of a stage out (default: as --width)."),
]
Judged = Annotated[
    int | None,
    typer.Option(
        "--judged",
        metavar="N",
        min=0,
        help="With data, plans to judge in short: 1 compares with fewer levers, more tell prices anew (default: 1).",
    ),
]
MaxLatency = Annotated[
    Any,
    typer.Option(
        "--max-latency",
        metavar="0.8x",
        parser=_limit("max_latency"),
        help="Limit on its measured latency (default: one image, eager; see --target).",
    ),
]
TargetName = Annotated[
    str | None,
    typer.Option(
        "--target", metavar="NAME", help="Where the net is to be fast: one of `convsmith list targets`, or eager:cuda."
    ),
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="With --target: CPU threads (default: 1).")]
Batch = Annotated[int | None, typer.Option("--batch", min=1, help="With --target: images at once (default: 1).")]
LatencyFile = Annotated[
    Path | None,
    typer.Option(
        "--latency-file",
        metavar="FILE",
        help="With --target: where times are kept (default: $CONVSMITH_LATENCY, or in the cache folder).",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--override", metavar="LAYER=BLOCK", help="A layer's own block, whatever the others become."),
]
Keep = Annotated[
    list[str] | None, typer.Option("--keep", metavar="LAYER", help="Leave a layer alone; may be given again.")
]
BlockName = Annotated[str, typer.Option("--block", help="auto, or a block such as dw-pw:r=2 (see `convsmith list`).")]
BlockOrNone = Annotated[str, typer.Option("--block", help="auto, none, or a block such as dw-pw:r=2.")]
Method = Annotated[
    str | None,
    typer.Option("--method", help="How weights are carried, or none (default: the best for each block)."),
]
Teacher = Annotated[
    str | None, typer.Option("--teacher", metavar="MODEL", help="A trained model to learn from as well.")
]
TeacherWeights = Annotated[
    Path | None, typer.Option("--teacher-weights", metavar="FILE", help="The teacher's state dict.")
]
Labels = Annotated[bool, typer.Option("--labels/--no-labels", help="Learn from labels too, or from the teacher alone.")]
Responses = Annotated[
    bool, typer.Option("--responses", help="Match the responses of replaced layers to the teacher's.")
]
Match = Annotated[
    list[str] | None,
    typer.Option(
        "--match", metavar="PATH", help="With --no-labels, a module whose answers are matched (default: the net's)."
    ),
]
Fitted = Annotated[str | None, typer.Option("--method", help="With data: the method whose errors ranks are chosen by.")]
Rate = Annotated[
    float | None,
    typer.Option("--lr", help="Largest learning rate (default: what suits the data; for trained weights it is found)."),
]
BatchSize = Annotated[int | None, typer.Option("--batch-size", min=1, help="Images a step.")]
Runtimes = Annotated[
    str | None,
    typer.Option(
        "--runtimes",
        metavar="eager,onnxruntime",
        help="What to measure in, of `convsmith list targets` (default: eager,compile,onnxruntime).",
    ),
]
Epochs = Annotated[int | None, typer.Option("--epochs", min=0, help="Training epochs (default: what suits the data).")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Seed of everything random.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu or cuda (default: cuda where there is one).")]
Formats = Annotated[
    str,
    typer.Option("--format", metavar="onnx,pt2", help="File formats: onnx, pt2, and torch (a state dict, and pt2)."),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show warnings, and the trace of an error.")]
