"""The whole way: plan, build, train or recover, export and measure a baseline and its better form, step by step.

Every step leaves its result in the run's folder and is not repeated where that is whole: a stopped run goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from convsmith.bench import Bench, bench
from convsmith.calibration.calibrate import IMAGES
from convsmith.data import Data
from convsmith.export import EXPORTS, INT8, ONNX, export, files_of, keep_record
from convsmith.files import write_text
from convsmith.load import Loaded, Wish, holds_model, load_folder, load_with_data
from convsmith.optimize.in_memory import optimize
from convsmith.optimize.steps import SCORES, Watch, claim, finish, write
from convsmith.progress import Progress
from convsmith.score.metric import score
from convsmith.target import Target
from convsmith.train import Recipe, lent, pick_device, recipe_for, recovery_for

BASELINE, OPTIMIZED = "baseline", "optimized"  # folders, and what the two are called in tables
ORGANIZE, DECOMPOSE, BENCH = "organize.json", "decompose.json", "bench.json"
PRICES = "prices.jsonl"  # of blocks, until the plan is written
FORMATS = ("onnx", "pt2")


@dataclass(frozen=True)
class Settings:
    """What decides a run's result: one folder holds one of them.

    `block` is what `decompose` takes, `none` for leaving convolutions as they are. `organize` None organizes unless the
    weights are trained. `max_macs` and `max_latency` limit the result (`0.5x`, `300M`, `5ms`). `epochs`, `lr` and
    `batch_size` None take the recipe's; the rate is found for trained weights. `keep`, `overrides` and `method` are
    those of `decompose` and `apply`, which look at so many `images`. `int8` writes and measures 8-bit files of both
    nets, too. `target` is where latency is measured. `refit_steps` are those of `apply`, with trained weights.
    """

    model: str
    data: str
    weights: str | None = None
    wish: Wish = field(default_factory=Wish)
    block: str = "auto"
    organize: bool | None = None
    max_macs: float | str | None = None
    epochs: int | None = None
    seed: int = 0
    max_latency: float | str | None = None
    keep: tuple[str, ...] = ()
    overrides: Mapping[str, str] = field(default_factory=dict)
    method: str | None = None
    images: int = IMAGES
    lr: float | None = None
    batch_size: int | None = None
    int8: bool = False
    target: Target | None = None
    refit_steps: int = 0


def run(
    settings: Settings,
    out: Path,
    *,
    watch: Watch | None = None,
    device: str | None = None,
    formats: Sequence[str] = FORMATS,
    runtimes: Sequence[str] | None = None,
    seconds: float = 2.0,
    trust: bool = False,
    command: str = "",
    latency_file: Path | None = None,
) -> Path:
    """Improve a model and leave everything about it in `out`; the same call goes on with a run that was stopped.

    Without trained weights the baseline and the better net are trained alike from a fresh start. With them the baseline
    is evaluated, the weights are carried over, and the new net is evaluated. It is then recovered with the baseline as
    its teacher, and evaluated again; bench/recovery.py measures what that is worth. formats, runtimes: what to export
    and to measure in (default: all), for about `seconds` a model, runtime and batch. trust: see `load`.
    latency_file: see `decompose`. Raises ConvsmithError when `out` holds a run of other settings, and for all that its
    steps refuse.
    """
    watch = watch or Watch()
    watch.step(f"loading {settings.model} and {settings.data}")
    torch.manual_seed(settings.seed)
    weights = Path(settings.weights) if settings.weights else None
    base, data = load_with_data(settings.model, settings.data, settings.wish, weights=weights, trust=trust)
    watch.step(data.summary)
    for note in base.notes:
        watch.step(f"note: {note}")
    with claim(settings, out, command):
        _run(base, data, settings, out, watch, device, formats, runtimes, seconds, latency_file)
    return out


def _run(
    base: Loaded,
    data: Data,
    settings: Settings,
    out: Path,
    watch: Watch,
    device: str | None,
    formats: Sequence[str],
    runtimes: Sequence[str] | None,
    seconds: float,
    latency_file: Path | None,
) -> None:
    """The steps, in a folder that is this run's alone."""
    watch.step("planning")
    better = (
        load_folder(out / OPTIMIZED)
        if holds_model(out / OPTIMIZED)
        else _plan(base, data, settings, out, device, watch.progress, latency_file)
    )
    recipe = _recipe(data, settings, base.origin.trained, device)
    kept = base.origin.trained
    nets = {BASELINE: finish(base, data, replace(recipe, epochs=0) if kept else recipe, None, out / BASELINE, watch)}
    teacher = nets[BASELINE].model if kept else None
    nets[OPTIMIZED] = finish(better, data, recipe, teacher, out / OPTIMIZED, watch)
    for name, net in nets.items():
        watch.step(f"exporting {name}")
        _export(net, data if settings.int8 else None, out / name, formats, settings, watch.progress)
    watch.step("measuring latency")
    _bench(nets, out, runtimes, seconds, watch)


def _plan(
    base: Loaded, data: Data, settings: Settings, out: Path, device: str | None, progress: Progress,
    latency_file: Path | None,
) -> Loaded:  # fmt: skip
    """Move units, then swap convolutions; weights fitted to the data's images where they are trained, else fresh."""
    trained, graph = base.origin.trained, base.graph()
    write(out / BASELINE / SCORES, score(graph).to_dict())
    moving = not trained if settings.organize is None else settings.organize
    if not moving and settings.block == "none":
        write(out / OPTIMIZED / SCORES, score(graph).to_dict())
        return base
    with lent(base.model, pick_device(device if trained else "cpu")):
        like = next(base.model.parameters())
        done = optimize(
            base.model, torch.zeros(1, *base.origin.input, device=like.device, dtype=like.dtype),
            images=data if trained else None, max_macs=settings.max_macs, max_latency=settings.max_latency,
            block=settings.block, organize=moving, keep=settings.keep, overrides=settings.overrides,
            method=settings.method or (None if trained else "none"), count=settings.images, seed=settings.seed,
            progress=progress, prices=out / PRICES, target=settings.target, latency_file=latency_file,
            refit_steps=settings.refit_steps if trained else 0,
        )  # fmt: skip
    names = [*([ORGANIZE] if moving else []), *([DECOMPOSE] if settings.block != "none" else [])]
    for name, plan in zip(names, done.plans, strict=True):
        write_text(out / name, plan.to_json() + "\n")
    (out / PRICES).unlink(missing_ok=True)
    net = base.after(done.model.to("cpu"), *done.plans)
    write(out / OPTIMIZED / SCORES, score(net.graph()).to_dict())
    return net


def _recipe(data: Data, settings: Settings, trained: bool, device: str | None) -> Recipe:
    told = {"epochs": settings.epochs, "lr": settings.lr, "batch_size": settings.batch_size}
    changes: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
    return (recovery_for if trained else recipe_for)(data, seed=settings.seed, device=device, **changes)


def _export(
    net: Loaded, data: Data | None, folder: Path, formats: Sequence[str], settings: Settings, progress: Progress
) -> None:
    if not (folder / EXPORTS).is_file():
        given: dict[str, Any] = {"input": net.origin.input, "seed": settings.seed, "progress": progress}
        given["metadata"] = net.metadata()
        checks = [export(net.model, folder / name, **given) for name in files_of(formats)]
        if data is not None:
            checks.append(export(net.model, folder / INT8, int8=data, images=settings.images, **given))
        keep_record(checks, folder)


def _bench(nets: dict[str, Loaded], out: Path, runtimes: Sequence[str] | None, seconds: float, watch: Watch) -> None:
    if not (out / BENCH).is_file():
        models = {name: net.model for name, net in nets.items()}
        files, small = (
            {name: out / name / file for name in nets if (out / name / file).is_file()} for file in (ONNX, INT8)
        )
        choice: dict[str, Any] = {} if runtimes is None else {"runtimes": tuple(runtimes)}
        measured: Bench = bench(
            models, input=nets[BASELINE].origin.input, onnx=files, int8=small, seconds=seconds,
            progress=watch.progress, **choice,
        )  # fmt: skip
        write_text(out / BENCH, measured.to_json() + "\n")
