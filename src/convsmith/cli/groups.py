"""Options that several commands share, as records: a command takes the record, the command line its fields."""

from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, cleandoc, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from convsmith.cli import options as opt
from convsmith.cli.terminal import Terminal, told_in_one_line
from convsmith.errors import ConvsmithError
from convsmith.target import Target

if TYPE_CHECKING:  # takes seconds to import, which wrong usage and --help need not
    from convsmith.data import Data
    from convsmith.load import Loaded, Wish

IMAGES = 512  # `calibrate`'s own, told again for the same reason


@dataclass(frozen=True)
class Form:
    """What form of a net is meant, and whether code that its files name may run."""

    input: opt.Input = None
    classes: opt.Classes = None
    trust: opt.Trust = False

    def wish(self) -> "Wish":
        """As `load` takes it."""
        from convsmith.load import Wish

        return Wish(self.input, self.classes)

    def load(self, terminal: Terminal, reference: str, weights: Path | None = None) -> "Loaded":
        """The net of a reference; what a user should know about it is told."""
        from convsmith.load import load

        loaded = load(reference, self.wish(), weights=weights, trust=self.trust)
        terminal.notes(loaded.notes)
        return loaded


@dataclass(frozen=True)
class Deep(Form):
    """The same, and how many units its stages have."""

    blocks_per_stage: opt.Depths = None

    def wish(self) -> "Wish":
        """As `load` takes it."""
        from convsmith.load import Wish

        return Wish(self.input, self.classes, self.blocks_per_stage)


@dataclass(frozen=True)
class Reading(Deep):
    """The same, what weights it has, and how images are read for it."""

    weights: opt.Weights = None
    mean: opt.Mean = None
    std: opt.Std = None

    def wish(self) -> "Wish":
        """As `load` takes it."""
        from convsmith.load import Wish

        return Wish(self.input, self.classes, self.blocks_per_stage, self.mean, self.std)

    def load(self, terminal: Terminal, reference: str, weights: Path | None = None) -> "Loaded":
        """The net of a reference with its weights; what a user should know about it is told."""
        return super().load(terminal, reference, weights or self.weights)

    @property
    def weights_text(self) -> str | None:
        """The weights' file, as records keep it."""
        return str(self.weights) if self.weights else None

    def load_with(self, terminal: Terminal, reference: str, data: str) -> "tuple[Loaded, Data]":
        """The net for a data set, and that; what a user should know about both is told."""
        from convsmith.load import load_with_data

        loaded, images = load_with_data(reference, data, self.wish(), weights=self.weights, trust=self.trust)
        terminal.step(images.summary)
        terminal.notes(loaded.notes)
        return loaded, images


@dataclass(frozen=True)
class Judging:
    """The images that tell what a trained net needs."""

    data: opt.Judging = None
    images: opt.Images = IMAGES


@dataclass(frozen=True)
class Calibrating:
    """What blocks are fitted to."""

    data: opt.Calibration = None
    images: opt.Images = IMAGES
    stats: opt.Stats = None

    @property
    def fits(self) -> bool:
        """Whether there is something to fit to."""
        return self.data is not None or self.stats is not None


@dataclass(frozen=True)
class Quantizing:
    """Whether 8-bit files are written, and what they are calibrated on."""

    int8: opt.Int8 = False
    data: opt.Quantized = None
    images: opt.Images = IMAGES


@dataclass(frozen=True)
class Limits:
    """What the new net may cost."""

    max_macs: opt.MaxMacs = None
    max_latency: opt.MaxLatency = None


@dataclass(frozen=True)
class Blocks:
    """What layers may become, how they are fitted, and whether channels and units may go."""

    block: opt.BlockName = "auto"
    method: opt.Fitted = None
    width: opt.Width = None
    depth: opt.Depth = None


@dataclass(frozen=True)
class Counted:
    """How the metric counts."""

    convention: opt.ConventionName = "published"
    alpha: opt.Alpha = 3.0
    clamp: opt.Clamp = False
    count: opt.CountingName = "plain"


@dataclass(frozen=True)
class Teaching:
    """What a net learns from."""

    teacher: opt.Teacher = None
    teacher_weights: opt.TeacherWeights = None
    labels: opt.Labels = True
    responses: opt.Responses = False
    match: opt.Match = None


@dataclass(frozen=True)
class Training:
    """What a recipe is told; None takes its own."""

    epochs: opt.Epochs = None
    lr: opt.Rate = None
    batch_size: opt.BatchSize = None

    def told(self) -> dict[str, Any]:
        """What was given, by name."""
        given = {"epochs": self.epochs, "lr": self.lr, "batch_size": self.batch_size}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Edited:
    """Layers that are an exception to what is planned for the others."""

    keep: opt.Keep = None
    override: opt.Overrides = None

    def told(self) -> dict[str, Any]:
        """As `decompose` takes them."""
        return {"keep": tuple(self.keep or ()), "overrides": opt.read_overrides(self.override or ())}


@dataclass(frozen=True)
class Aimed:
    """Where a net is to be fast."""

    target: opt.TargetName = None
    threads: opt.Threads = None
    batch: opt.Batch = None
    latency_file: opt.LatencyFile = None

    def aim(self) -> Target | None:
        """The target, None where none is named; raises ConvsmithError where one is only described."""
        if self.target is not None:
            return Target.parse(self.target, self.threads or 1, self.batch or 1)
        if self.threads or self.batch or self.latency_file:
            raise ConvsmithError("--threads, --batch and --latency-file are a target's; give --target too.")
        return None


@dataclass(frozen=True)
class Place:
    """What random draws start from, and where to compute."""

    seed: opt.Seed = 0
    device: opt.Device = None


@dataclass(frozen=True)
class Said:
    """What every command takes: how it answers."""

    json: opt.Json = None
    quiet: opt.Quiet = False
    verbose: opt.Verbose = False


@dataclass(frozen=True)
class Command:
    """One command: what typer runs, its name, its help with an example and a page, and the one line in the list."""

    run: Callable[..., None]
    name: str
    help: str
    summary: str


def command(example: str, page: str) -> Callable[[Callable[..., None]], Command]:
    """Make a command of a function whose docstring is its help; records among its parameters become options.

    The function gets a Terminal first. `example` is a whole command line, `page` where more is written.
    """

    def made(run: Callable[..., None]) -> Command:
        help = cleandoc(run.__doc__ or "")
        text = f"{help}\n\n\b\nExample:\n  {example}\nMore: {page}"
        return Command(told_in_one_line(_flat(run)), run.__name__, text, help.splitlines()[0].rstrip("."))

    return made


def _flat(run: Callable[..., None]) -> Callable[..., None]:
    """The function with the fields of records, and of `Said`, as parameters of its own, behind the others."""
    _, *taken = signature(run).parameters.values()
    hints = get_type_hints(run, include_extras=True)
    records = {taking.name: hints[taking.name] for taking in taken if is_dataclass(hints[taking.name])}
    plain = [
        taking.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[taking.name])
        for taking in taken
        if taking.name not in records
    ]
    parameters = [*plain, *(option for record in (*records.values(), Said) for option in _options(record))]

    @wraps(run)
    def flat(**given: Any) -> None:
        opt.require_image(given.get("model"), given.get("input"))
        said = _record(Said, given)
        made = {name: _record(record, given) for name, record in records.items()}
        with Terminal(quiet=said.quiet, verbose=said.verbose, json=said.json) as terminal:
            run(terminal, **given, **made)

    vars(flat)["__signature__"] = Signature(parameters)
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat


def _options(record: Any) -> Iterator[Parameter]:
    hints = get_type_hints(record, include_extras=True)
    for field in fields(record):
        default = Parameter.empty if field.default is MISSING else field.default
        yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name])


def _record(record: Any, given: dict[str, Any]) -> Any:
    """A record of the values of its fields, which are taken out of those given."""
    return record(**{field.name: given.pop(field.name) for field in fields(record)})
