"""What whole runs share: a folder that is one run's, and nets judged, trained, judged again and kept in it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

from torch import nn

from convsmith.data import Data
from convsmith.environment import environment
from convsmith.errors import ConvsmithError
from convsmith.files import write_text
from convsmith.load import Loaded, holds_model, load_folder, save
from convsmith.locks import contents, owned
from convsmith.optimize.evaluations import RECOVERED, TRAINED, Evaluations
from convsmith.progress import Progress, silent
from convsmith.train import Epoch, Probe, Recipe, reestimate_norms, train

RUN, SCORES = "run.json", "scores.json"


@dataclass(frozen=True)
class Watch:
    """Who is told how far a run is.

    `step` when one begins, `epoch` after each (net, epochs in all, record), `rate` when a learning rate was found.
    `progress` hears of steps within planning, fitting, training, evaluating and measuring.
    """

    step: Callable[[str], None] = lambda text: None
    epoch: Callable[[str, int, Epoch], None] = lambda net, total, epoch: None
    progress: Progress = silent
    rate: Callable[[Probe], None] = lambda found: None


@contextmanager
def claim(settings: Any, out: Path, command: str) -> Iterator[None]:
    """Have the folder for these settings alone, made or found to be theirs; no other run writes there meanwhile."""
    with owned(out):
        _claim(settings, out, command)
        yield


def _claim(settings: Any, out: Path, command: str) -> None:
    path, asked = out / RUN, json.loads(json.dumps(asdict(settings)))
    if path.is_file():
        try:
            before = dict(json.loads(path.read_text())["settings"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConvsmithError(f"{path}: cannot be read as a run's record; choose another folder.") from error
        changed = [name for name in asked if before.get(name) != asked[name]]
        if changed:
            got = f"{changed[0]} = {before.get(changed[0])!r}, not {asked[changed[0]]!r}"
            raise ConvsmithError(f"{out}: holds a run with {got}; repeat that one, or choose another folder.")
    elif contents(out):
        raise ConvsmithError(f"{out}: is not empty and holds no run of convsmith; choose another folder.")
    else:
        write(path, {"command": command, "settings": asked, "environment": environment()})


def finish(net: Loaded, data: Data, recipe: Recipe, teacher: nn.Module | None, folder: Path, watch: Watch) -> Loaded:
    """Evaluate a net that comes with weights, train it, evaluate it again, and save it; what is saved is not redone."""
    if holds_model(folder):
        return load_folder(folder)
    name, trained, log = folder.name, net.origin.trained, Evaluations(data, recipe.device, (), watch.progress)
    if trained:
        watch.step(f"evaluating {name}")
        log.begin(net)
    if trained and recipe.epochs:
        watch.step(f"estimating the norms of {name} anew")
        _renorm(net, data, recipe, teacher, log)
        log.write(folder)
    if recipe.epochs:
        watch.step(f"{'recovering' if trained else 'training'} {name}")
        done = train(
            net.model, data, recipe, out=folder, teacher=teacher,
            progress=lambda epoch: watch.epoch(name, recipe.epochs, epoch), told=watch.rate, steps=watch.progress,
        )  # fmt: skip
        log.finish(RECOVERED if trained else TRAINED, done.final, kept=done.kept != 0)
    log.write(folder)
    finished = net.trained_on(data.mean, data.std, data.names)
    save(finished, folder)
    rmtree(folder / "checkpoint", ignore_errors=True)
    return finished


def _renorm(net: Loaded, data: Data, recipe: Recipe, teacher: nn.Module | None, log: Evaluations) -> None:
    """Estimate the norms anew, and undo that where the test split gets worse though the held-out images did not."""
    before = {name: value.clone() for name, value in net.model.state_dict().items()}
    norms = reestimate_norms(net.model, data, teacher=teacher, seed=recipe.seed, device=recipe.device)
    log.renormed(net.model, norms.kept)
    if log.worse:
        net.model.load_state_dict(before)
        log.undo()


def write(path: Path, record: Any) -> None:
    """Keep a record as JSON."""
    write_text(path, json.dumps(record, indent=1) + "\n")
