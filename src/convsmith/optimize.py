"""The whole way: plan, build, train or recover, export and measure a baseline and its better form, step by step.

Every step leaves its result in the run's folder and is not repeated where that is whole: a stopped run goes on.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
from torch import nn

from convsmith.bench import Bench, bench
from convsmith.calibrate import take_images
from convsmith.capture import capture
from convsmith.data import Data
from convsmith.decompose import decompose
from convsmith.environment import environment
from convsmith.errors import ConvsmithError
from convsmith.export import export
from convsmith.files import write_text
from convsmith.graph import Graph
from convsmith.load import Loaded, Wish, holds_model, load_folder, load_with_data, save
from convsmith.metric import score
from convsmith.organize import organize
from convsmith.plan import Plan
from convsmith.rewrite import means_of, rewrite
from convsmith.train import Epoch, Recipe, evaluate, recipe_for, recovery_for, reestimate_norms, train
from convsmith.transfer import Means

BASELINE, OPTIMIZED = "baseline", "optimized"  # folders, and what the two are called in tables
RUN, ORGANIZE, DECOMPOSE, BENCH = "run.json", "organize.json", "decompose.json", "bench.json"
SCORES, EVALUATIONS, EXPORTS = "scores.json", "evaluations.json", "exports.json"
FORMATS = ("onnx", "pt2")


@dataclass(frozen=True)
class Settings:
    """What decides a run's result: one folder holds one of them.

    `block` is what `decompose` takes, `none` for leaving convolutions as they are; `organize` None organizes unless the
    weights are trained; `max_macs` limits the result as a multiple of the baseline's MACs; `epochs` None takes the
    recipe's.
    """

    model: str
    data: str
    weights: str | None = None
    wish: Wish = field(default_factory=Wish)
    block: str = "auto"
    organize: bool | None = None
    max_macs: float | None = None
    epochs: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Watch:
    """Who is told how far a run is: `step` when one begins, `epoch` after each (net, epochs in all, record)."""

    step: Callable[[str], None] = lambda text: None
    epoch: Callable[[str, int, Epoch], None] = lambda net, total, epoch: None


def optimize(
    settings: Settings,
    out: Path,
    *,
    watch: Watch | None = None,
    device: str | None = None,
    formats: Sequence[str] = FORMATS,
    runtimes: Sequence[str] | None = None,
    seconds: float = 2.0,
    command: str = "",
) -> Path:
    """Improve a model and leave everything about it in `out`; the same call goes on with a run that was stopped.

    Without trained weights the baseline and the better net are trained alike from a fresh start; with them the baseline
    is evaluated, the weights are carried over, and the new net is evaluated, recovered with the baseline as its teacher
    (bench/recovery.py measures what that is worth), and evaluated again. formats, runtimes: what to export and to
    measure in (default: all), for about `seconds` a model, runtime and batch.
    Raises ConvsmithError when `out` holds a run of other settings, and for all that its steps refuse.
    """
    watch = watch or Watch()
    _open(settings, out, command)
    watch.step(f"loading {settings.model} and {settings.data}")
    torch.manual_seed(settings.seed)
    weights = Path(settings.weights) if settings.weights else None
    base, data = load_with_data(settings.model, settings.data, settings.wish, weights=weights)
    watch.step("planning")
    better = _plan(base, data, settings, out)
    recipe = _recipe(data, settings, base.origin.trained, device)
    kept = base.origin.trained
    nets = {BASELINE: _finish(base, data, replace(recipe, epochs=0) if kept else recipe, None, out / BASELINE, watch)}
    teacher = nets[BASELINE].model if kept else None
    nets[OPTIMIZED] = _finish(better, data, recipe, teacher, out / OPTIMIZED, watch)
    for name, net in nets.items():
        watch.step(f"exporting {name}")
        _export(net, out / name, formats, settings.seed)
    watch.step("measuring latency")
    _bench(nets, out, runtimes, seconds, watch)
    return out


def _open(settings: Settings, out: Path, command: str) -> None:
    """Claim the folder for these settings, or find that it is theirs."""
    path, told = out / RUN, json.loads(json.dumps(asdict(settings)))
    if path.is_file():
        try:
            before = json.loads(path.read_text())["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConvsmithError(f"{path}: cannot be read as a run's record; choose another folder.") from error
        changed = [name for name in told if before.get(name) != told[name]]
        if changed:
            got = f"{changed[0]} = {before.get(changed[0])!r}, not {told[changed[0]]!r}"
            raise ConvsmithError(f"{out}: holds a run with {got}; repeat that one, or choose another folder.")
    elif out.is_dir() and any(out.iterdir()):
        raise ConvsmithError(f"{out}: is not empty and holds no run of convsmith; choose another folder.")
    else:
        _write(path, {"command": command, "settings": told, "environment": environment()})


def _plan(base: Loaded, data: Data, settings: Settings, out: Path) -> Loaded:
    """Move units, then swap convolutions; weights fitted to the data's images where they are trained, else fresh."""
    trained = base.origin.trained
    net, graph = base, _capture(base)
    allowed = None if settings.max_macs is None else settings.max_macs * graph.macs
    _write(out / BASELINE / SCORES, score(graph).to_dict())
    if settings.organize or (settings.organize is None and not trained):
        net, graph = _apply(net, organize(graph), out / ORGANIZE, None)
    if settings.block != "none":
        limit = None if allowed is None else allowed / graph.macs
        means = means_of(None, take_images(data, seed=settings.seed), seed=settings.seed) if trained else None
        net, graph = _apply(net, decompose(graph, block=settings.block, max_macs=limit), out / DECOMPOSE, means)
    _write(out / OPTIMIZED / SCORES, score(graph).to_dict())
    return net


def _apply(net: Loaded, plan: Plan, path: Path, means: Means | None) -> tuple[Loaded, Graph]:
    applied = rewrite(net.model, plan, means)
    write_text(path, applied.plan.to_json() + "\n")
    after = net.after(applied.model, applied.plan)
    return after, _capture(after)


def _capture(net: Loaded) -> Graph:
    return capture(net.model, torch.zeros(1, *net.origin.input), name=net.name)


def _recipe(data: Data, settings: Settings, trained: bool, device: str | None) -> Recipe:
    changes = {} if settings.epochs is None else {"epochs": settings.epochs}
    return (recovery_for if trained else recipe_for)(data, seed=settings.seed, device=device, **changes)


def _finish(net: Loaded, data: Data, recipe: Recipe, teacher: nn.Module | None, folder: Path, watch: Watch) -> Loaded:
    """Evaluate a net that comes with weights, train it, evaluate it again, and save it."""
    if holds_model(folder):
        return load_folder(folder)
    name, trained, told = folder.name, net.origin.trained, []
    if trained:
        watch.step(f"evaluating {name}")
        before = evaluate(net.model, data.test, device=recipe.device)
        told.append({"when": "before recovery" if recipe.epochs else "as loaded"} | asdict(before))
    if trained and recipe.epochs:
        watch.step(f"estimating the norms of {name} anew")
        if reestimate_norms(net.model, data, teacher=teacher, seed=recipe.seed, device=recipe.device).kept:
            told.append({"when": "norms anew"} | asdict(evaluate(net.model, data.test, device=recipe.device)))
    if recipe.epochs:
        watch.step(f"{'recovering' if trained else 'training'} {name}")
        done = train(
            net.model, data, recipe, out=folder, teacher=teacher,
            progress=lambda epoch: watch.epoch(name, recipe.epochs, epoch),
        )  # fmt: skip
        told.append({"when": "recovered" if trained else "trained"} | asdict(done.final))
    _write(folder / EVALUATIONS, told)
    finished = net.trained_on(data.mean, data.std)
    save(finished, folder)
    rmtree(folder / "checkpoint", ignore_errors=True)
    return finished


def _export(net: Loaded, folder: Path, formats: Sequence[str], seed: int) -> None:
    if not (folder / EXPORTS).is_file():
        paths = [folder / f"model.{form}" for form in formats]
        checks = [export(net.model, path, input=net.origin.input, seed=seed) for path in paths]
        _write(folder / EXPORTS, [asdict(check) | {"path": check.path.name} for check in checks])


def _bench(nets: dict[str, Loaded], out: Path, runtimes: Sequence[str] | None, seconds: float, watch: Watch) -> None:
    if not (out / BENCH).is_file():
        models = {name: net.model for name, net in nets.items()}
        files = {name: out / name / "model.onnx" for name in nets if (out / name / "model.onnx").is_file()}
        choice: dict[str, Any] = {} if runtimes is None else {"runtimes": tuple(runtimes)}
        shape = nets[BASELINE].origin.input
        measured: Bench = bench(models, input=shape, onnx=files, seconds=seconds, progress=watch.step, **choice)
        write_text(out / BENCH, measured.to_json() + "\n")


def _write(path: Path, record: Any) -> None:
    write_text(path, json.dumps(record, indent=1) + "\n")
