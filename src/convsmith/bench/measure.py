"""Latency of models side by side: runs interleaved, medians with spread, and a verdict only where it is sure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, product
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from convsmith.bench.records import Bench, Latency, Skipped
from convsmith.bench.statistics import compare
from convsmith.bench.subjects import Named, named_subject
from convsmith.bounds import ELEMENTS, check_input
from convsmith.environment import environment
from convsmith.errors import ConvsmithError
from convsmith.export import quiet, reason
from convsmith.formats import other_precision
from convsmith.graph.signature import Shape, Shapes, each_shape, in_order
from convsmith.latency.files import batches_of, image_of
from convsmith.latency.interleaved import Run, Times, clock_for, take_turns
from convsmith.latency.targets import RUN_ERRORS, RUNTIMES, set_threads, started
from convsmith.progress import Progress, silent
from convsmith.text import times
from convsmith.zoo import input_of

WARM_UP = 3  # runs before the first reading: allocation, and what a runtime tunes at first sight

Models = Mapping[str, nn.Module | Path]


def bench(
    models: Models | Sequence[nn.Module | Path],
    *,
    input: Shapes | None = None,
    batches: Sequence[int] | None = None,
    runtimes: Sequence[str] = ("eager", "compile", "onnxruntime"),
    threads: int | None = None,
    onnx: Mapping[str, Path] | None = None,
    int8: Mapping[str, Path] | None = None,
    seconds: float = 1.5,
    seed: int = 0,
    trust: bool = False,
    progress: Progress = silent,
) -> Bench:
    """Measure models, .onnx and .pt2 files on the CPU; the first is what the others are compared with.

    Models of one runtime and batch are run in turn, round by round, so that a busy machine slows all of them alike.
    Modules run in float32, evaluation and inference mode, and channels_last, in which convolutions on CPUs are faster.

    Args:
        models: By name; or a sequence, whose members are named by their place and type.
        input: (channels, height, width). By default what the first module was built for if it is a zoo net, else 3,
            224, 224. Of modules of several inputs their shapes by the names of forward's arguments, or in order. Where
            all are files, what stands in the first one; a file's other inputs are filled as it says.
        batches: By default 1 and 32, or what all files are fixed at. A file fixed at another shape is skipped there.
        runtimes: Names of runtimes; .onnx files run in onnxruntime only, .pt2 files in eager. One that fails on a model
            is skipped with its reason.
        threads: CPU threads; None for torch's own number. Of one thread the processor's time is told, which other
            processes do not lengthen.
        onnx: Files already exported, by model; the others are exported to a temporary folder.
        int8: Files in 8-bit integers, by the model that they are of. They run beside it in onnxruntime as `NAME int8`,
            and are compared with each other, too.
        seconds: About how long a model's readings take in one runtime at one batch size. Compiling comes on top.
        seed: Draws the images.
        trust: Whether torch may load a .pt2 file that is not read as plain data, which can run code it holds.
        progress: Told what is measured.

    Returns:
        Median and quartiles in milliseconds a batch, and the ratio to the first model with its 95 % bounds. `pairs` has
        those of the int8 files to the first of them.

    Raises:
        ConvsmithError: On an unknown runtime, a file of another kind or none, and sizes below 1.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> found = bench({"net": net}, input=(3, 8, 8), batches=[1], runtimes=["eager"], seconds=0.01)
    >>> [(cell.model, cell.runtime, cell.batch, cell.median_ms > 0) for cell in found.cells]
    [('net', 'eager', 1, True)]
    """
    models = models if isinstance(models, Mapping) else named(models)
    modules = [model for model in models.values() if isinstance(model, nn.Module)]
    input = in_order(modules[0], input or input_of(modules[0])) if modules else input
    threads = torch.get_num_threads() if threads is None else threads
    shapes = each_shape(input or ())
    if not models or not runtimes or batches == () or min(*(batches or ()), *chain(*shapes), threads, 1) < 1:
        raise ConvsmithError("bench: give a model, a runtime and a batch at least, and sizes and threads of 1 or more.")
    for shape in shapes:
        check_input(shape, "bench: input")
    entries = {name: RUNTIMES[name] for name in runtimes}
    cells: list[Latency] = []
    pairs: list[Latency] = []
    skipped: list[Skipped] = []
    with set_threads(threads), TemporaryDirectory() as folder:
        exports = Path(folder) if any(entry.reads == "file" for entry in entries.values()) else None
        prepare = partial(named_subject, input=input or (), onnx=onnx or {}, folder=exports, seed=seed, trust=trust)
        subjects = [
            *_prepared(models, prepare, progress),
            *(_beside(name, path, seed) for name, path in (int8 or {}).items()),
        ]
        batches = batches or batches_of([each.subject.slots for each in subjects])
        if input is None:
            first, path = next(iter(zip(subjects, models.values(), strict=True)))
            shapes = (image_of(first.subject.slots, Path(str(path))),)
        cases = list(product(entries, batches))
        for number, (runtime, batch) in enumerate(cases):
            progress(f"measuring {runtime}, batch {batch}", number, len(cases))
            images = _drawn(shapes, batch, seed)
            with torch.inference_mode():
                runs, missed = _start(subjects, runtime, images, threads)
                found = take_turns(runs, seconds, threads, clock_for(threads))
            cells += compare(found, runtime, batch, seed)
            pairs += compare(_those_beside(subjects, found), runtime, batch, seed)
            skipped += [Skipped(name, runtime, batch, why) for name, why in missed.items()]
    notes = tuple(f"{name}: {told}" for name, model in models.items() if (told := _precision(model)))
    return Bench(
        tuple(cells), tuple(skipped), shapes[0], threads, seed, **environment(), pairs=tuple(pairs), notes=notes
    )


def _drawn(shapes: Sequence[Shape], batch: int, seed: int) -> list[Tensor]:
    """A batch of every input."""
    if large := [shape for shape in shapes if prod((batch, *shape)) > ELEMENTS]:
        raise ConvsmithError(f"bench: {batch} images of {times(large[0])} are too many; give a smaller batch.")
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, *shape, generator=generator) for shape in shapes]


def _precision(model: nn.Module | Path) -> str:
    return other_precision(model) if isinstance(model, nn.Module) else ""


def named(models: Sequence[nn.Module | Path]) -> Models:
    """Names for models in a row.

    >>> list(named([nn.Conv2d(3, 8, 3), Path("a/net.onnx")]))
    ['0 Conv2d', '1 net.onnx']
    """
    return {
        f"{place} {model.name if isinstance(model, Path) else type(model).__name__}": model
        for place, model in enumerate(models)
    }


def _prepared(models: Models, prepare: Callable[[str, nn.Module | Path], Named], progress: Progress) -> Iterator[Named]:
    for number, (name, model) in enumerate(models.items()):
        progress(f"preparing {name}", number, len(models))
        yield prepare(name, model)


def _beside(name: str, path: Path, seed: int) -> Named:
    """The int8 file of a model."""
    return replace(named_subject(f"{name} int8", path, (), {}, None, seed), beside=True)


def _those_beside(subjects: Sequence[Named], times: Mapping[str, Times]) -> dict[str, Times]:
    return {each.name: times[each.name] for each in subjects if each.beside and each.name in times}


def _start(
    subjects: Sequence[Named], runtime: str, images: Sequence[Tensor], threads: int
) -> tuple[dict[str, Run], dict[str, str]]:
    """Warmed-up runs by model, and why others cannot run; all run before any is timed."""
    runs: dict[str, Run] = {}
    missed = {each.name: why for each in subjects if (why := each.misfit(runtime)) is not None and not each.beside}
    for each in subjects:
        if each.misfit(runtime) is None:
            try:
                with quiet():
                    run = started(each.subject, RUNTIMES[runtime], images, threads)
                    for _ in range(WARM_UP):
                        run()
                runs[each.name] = run
            except RUN_ERRORS as error:
                missed[each.name] = reason(error)
    return runs, missed
