"""Latency of models side by side: runs interleaved, medians with spread, and a verdict only where it is sure."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked
from torch import Tensor, nn

from convsmith.environment import environment
from convsmith.errors import ConvsmithError
from convsmith.export import ORT_ERRORS, evaluation_copy, export, quiet, reason, session
from convsmith.graph import FORWARD_ERRORS
from convsmith.registry import Registry
from convsmith.zoo import IMAGENET, input_of

ROUNDS = 21  # readings of each model, taken in turn; fewer where a single run is slow
# Two equal models with noisy times got a verdict in 3.6 % of 1000 draws of 9 rounds, in 8.4 % of 7: the bounds that a
# bootstrap finds from fewer are too tight.
FEWEST = 9
WARM_UP = 3  # runs before the first reading: allocation, and what a runtime tunes at first sight
RESAMPLES = 2000  # of the bootstrap
# OSError is torch.compile's where its cache folder cannot be written, BadZipFile that of a .pt2 file which is none.
RUN_ERRORS: tuple[type[Exception], ...] = (*FORWARD_ERRORS, *ORT_ERRORS, ConvsmithError, OSError, BadZipFile)
FASTER, SLOWER, UNSURE = "faster", "slower", "unclear"

Times = NDArray[np.float64]


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Latency:
    """One model in one runtime at one batch size: median and quartiles of its rounds, in milliseconds a batch.

    `ratio` is its median over that of the first model that runs there, `ratio_low` and `ratio_high` bound it with 95 %
    confidence (bootstrap over rounds; Efron, Annals of Statistics 1979). `verdict` is empty for that first model, and
    faster or slower only where the bounds exclude 1.
    """

    model: str
    runtime: str
    batch: int
    median_ms: float
    q1_ms: float
    q3_ms: float
    runs: int
    ratio: float
    ratio_low: float
    ratio_high: float
    verdict: str


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Skipped:
    """What could not be measured, and why."""

    model: str
    runtime: str
    batch: int
    reason: str


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Bench:
    """All that was measured on images of shape `input`, with how many threads, on which versions and hardware."""

    cells: tuple[Latency, ...]
    skipped: tuple[Skipped, ...]
    input: tuple[int, ...]
    threads: int
    seed: int
    versions: dict[str, Any]
    hardware: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        record: dict[str, Any] = json.loads(self.to_json())
        return record

    def to_json(self) -> str:
        """As text."""
        return _BENCH.dump_json(self, indent=1).decode()

    @classmethod
    def from_json(cls, text: str, source: str = "the benchmark") -> Self:
        """Read what `to_json` wrote; raises ConvsmithError naming `source`."""
        try:
            return _BENCH.validate_json(text)  # type: ignore[return-value]
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the text"
            raise ConvsmithError(f"{source}: {where}: {first['msg']}; measure again with `convsmith bench`.") from None


_BENCH: TypeAdapter[Bench] = TypeAdapter(Bench)


@dataclass(frozen=True, eq=False)
class Subject:
    """A model to measure, as a module in evaluation mode and as an ONNX file; `unfit` tells why not, by runtime."""

    name: str
    module: nn.Module | None
    onnx: Path | None
    unfit: Mapping[str, str]


Run = Callable[[], Any]
RUNTIMES: Registry[Callable[[Subject, Tensor, int], Run]] = Registry("runtime")  # (subject, images, threads) -> a run


@RUNTIMES.register("eager")
def _eager(subject: Subject, images: Tensor, threads: int) -> Run:
    model, x = _channels_last(subject, images)
    return lambda: model(x)


@RUNTIMES.register("compile")
def _compiled(subject: Subject, images: Tensor, threads: int) -> Run:
    from torch._dynamo import config  # takes seconds to import

    model, x = _channels_last(subject, images)
    compiled = torch.compile(model, dynamic=False)
    # From the ninth model or batch of the same forward on, torch would not compile, and only log that it did not.
    with config.patch(recompile_limit=config.accumulated_recompile_limit):
        compiled(x)
    return lambda: compiled(x)


def _channels_last(subject: Subject, images: Tensor) -> tuple[nn.Module, Tensor]:
    if subject.module is None:
        raise ValueError("there is no module of it")
    layout = torch.channels_last
    return subject.module.to(memory_format=layout), images.contiguous(memory_format=layout)


@RUNTIMES.register("onnxruntime")
def _onnxruntime(subject: Subject, images: Tensor, threads: int) -> Run:
    if subject.onnx is None:
        raise ValueError("there is no ONNX file of it")
    runtime = session(subject.onnx, threads)
    feed = {runtime.get_inputs()[0].name: images.numpy()}
    return lambda: runtime.run(None, feed)


def bench(
    models: Mapping[str, nn.Module | Path] | Sequence[nn.Module | Path],
    *,
    input: tuple[int, int, int] | None = None,
    batches: Sequence[int] = (1, 32),
    runtimes: Sequence[str] = ("eager", "compile", "onnxruntime"),
    threads: int | None = None,
    onnx: Mapping[str, Path] | None = None,
    seconds: float = 1.5,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> Bench:
    """Measure models, .onnx and .pt2 files on the CPU; the first is what the others are compared with.

    models: by name, or in a row, to be named by their place and type. input: (channels, height, width), by default what
    the first was built for if it is a zoo net, else 3, 224, 224.

    The models of one runtime and batch are run in turn, round by round, so that what else the machine does strikes all
    alike. Modules run in evaluation and inference mode and channels_last: VGG16, its blocks and ResNet-20 took 0.59 to
    0.93 of their contiguous time so, on 1 and 32 CIFAR images and one thread of an EPYC.
    onnx: files already exported, by model; the others are exported to a temporary folder. seconds: about how long a
    model's readings take in one runtime at one batch size, though there are FEWEST at least. Compiling comes on top.
    A runtime that fails on a model is skipped with its reason; .onnx files run in onnxruntime only, .pt2 in eager.
    Raises ConvsmithError on an unknown runtime, a file of another kind or none, and sizes below 1.
    """
    models = models if isinstance(models, Mapping) else named(models)
    input = input or next((input_of(model) for model in models.values() if isinstance(model, nn.Module)), IMAGENET)
    threads = torch.get_num_threads() if threads is None else threads
    if not models or not runtimes or not batches or min(*batches, *input, threads) < 1:
        raise ConvsmithError("bench: give a model, a runtime and a batch at least, and sizes and threads of 1 or more.")
    starts = {name: RUNTIMES[name] for name in runtimes}
    cells: list[Latency] = []
    skipped: list[Skipped] = []
    with _threads(threads), TemporaryDirectory() as folder:
        exports = Path(folder) if "onnxruntime" in starts else None
        subjects = [_subject(name, model, input, onnx or {}, exports, seed) for name, model in models.items()]
        for runtime, batch in product(starts, batches):
            progress(f"measuring {runtime}, batch {batch}")
            images = torch.randn(batch, *input, generator=torch.Generator().manual_seed(seed))
            with torch.inference_mode():
                runs, missed = _start(subjects, runtime, images, threads)
                cells += compare(take_turns(runs, seconds, threads), runtime, batch, seed)
            skipped += [Skipped(name, runtime, batch, why) for name, why in missed.items()]
    return Bench(tuple(cells), tuple(skipped), input, threads, seed, **environment())


def named(models: Sequence[nn.Module | Path]) -> dict[str, nn.Module | Path]:
    """Names for models in a row.

    >>> list(named([nn.Conv2d(3, 8, 3), Path("a/net.onnx")]))
    ['0 Conv2d', '1 net.onnx']
    """
    return {
        f"{place} {model.name if isinstance(model, Path) else type(model).__name__}": model
        for place, model in enumerate(models)
    }


def _subject(
    name: str, model: nn.Module | Path, input: tuple[int, int, int], onnx: Mapping[str, Path], folder: Path | None,
    seed: int,
) -> Subject:  # fmt: skip
    """folder: where to export a module that has no ONNX file yet, None where that is not needed."""
    if isinstance(model, Path):
        return _file(name, model)
    replica = evaluation_copy(model)
    if name in onnx or folder is None:
        return Subject(name, replica, onnx.get(name), {})
    try:
        path = folder / f"{len(list(folder.iterdir()))}.onnx"
        return Subject(name, replica, export(replica, path, input=input, seed=seed).path, {})
    except ConvsmithError as error:
        return Subject(name, replica, None, {"onnxruntime": reason(error)})


def _file(name: str, path: Path) -> Subject:
    if not path.is_file() or path.suffix not in (".onnx", ".pt2"):
        raise ConvsmithError(f"{path}: cannot be measured; give a .onnx or .pt2 file that is there.")
    if path.suffix == ".onnx":
        return Subject(name, None, path, dict.fromkeys(("eager", "compile"), "a .onnx file runs in onnxruntime only"))
    try:
        with quiet():
            module = torch.export.load(path).module()
    except RUN_ERRORS as error:
        raise ConvsmithError(f"{path}: cannot be read ({reason(error)}); export it again.") from error
    return Subject(name, module, None, dict.fromkeys(("compile", "onnxruntime"), "a .pt2 file runs in eager only"))


def _start(
    subjects: Sequence[Subject], runtime: str, images: Tensor, threads: int
) -> tuple[dict[str, Run], dict[str, str]]:
    """Warmed-up runs by model, and why others cannot run; all run before any is timed."""
    runs: dict[str, Run] = {}
    missed = {subject.name: subject.unfit[runtime] for subject in subjects if runtime in subject.unfit}
    for subject in subjects:
        if subject.name not in missed:
            try:
                with quiet():
                    run = RUNTIMES[runtime](subject, images, threads)
                    for _ in range(WARM_UP):
                        run()
                runs[subject.name] = run
            except RUN_ERRORS as error:
                missed[subject.name] = reason(error)
    return runs, missed


def take_turns(
    runs: Mapping[str, Run], seconds: float, threads: int, clock: Callable[[], float] = perf_counter
) -> dict[str, Times]:
    """Seconds per run of every model in each round; the order turns round from one round to the next.

    Every reading starts with an untimed run, as the caches hold the other model, and is the median over half its share
    of the time, or one run. After FEWEST rounds, no more are begun once `seconds` per model are over.
    """
    from torch.utils.benchmark import Timer  # importing it warns where there is a CUDA toolkit, but no GPU

    timers = {
        name: Timer("run()", globals={"run": run}, num_threads=threads, timer=clock) for name, run in runs.items()
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = clock() + seconds * len(runs)
    for number in range(ROUNDS):
        if number >= FEWEST and clock() >= end:
            break
        for name in list(runs)[:: 1 if number % 2 == 0 else -1]:
            times[name].append(timers[name].blocked_autorange(min_run_time=seconds / ROUNDS / 2).median)
    return {name: np.array(values) for name, values in times.items()}


def compare(times: Mapping[str, Times], runtime: str, batch: int, seed: int) -> Iterator[Latency]:
    """Each model's times against the first one's, round by round; times are in seconds."""
    base = next(iter(times.values()), np.zeros(0))
    for number, (name, own) in enumerate(times.items()):
        low, high = (1.0, 1.0) if number == 0 else ratio_bounds(base, own, seed)
        q1, median, q3 = (1e3 * float(q) for q in np.quantile(own, (0.25, 0.5, 0.75)))
        ratio = float(np.median(own) / np.median(base))
        told = "" if number == 0 else verdict(low, high)
        yield Latency(name, runtime, batch, median, q1, q3, len(own), ratio, low, high, told)


def ratio_bounds(base: Times, own: Times, seed: int) -> tuple[float, float]:
    """The 95 % bounds of median(own) / median(base), by drawing rounds anew with replacement, both models' together.

    >>> ratio_bounds(np.array([1.0, 2.0, 4.0]), np.array([2.0, 4.0, 8.0]), seed=0)
    (2.0, 2.0)
    """
    rounds = np.random.default_rng(seed).integers(len(base), size=(RESAMPLES, len(base)))
    ratios = np.median(own[rounds], axis=1) / np.median(base[rounds], axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high)


def verdict(low: float, high: float) -> str:
    """What the bounds of a ratio allow to say.

    >>> verdict(0.5, 0.9), verdict(0.9, 1.1), verdict(1.2, 1.3)
    ('faster', 'unclear', 'slower')
    """
    return FASTER if high < 1 else SLOWER if low > 1 else UNSURE


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
