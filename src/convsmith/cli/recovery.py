"""Training a loaded net, or its norms alone, and keeping what that came to."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import nn

from convsmith.cli.groups import Place
from convsmith.cli.terminal import Terminal
from convsmith.data import UNLABELLED, Data
from convsmith.load import Loaded, check_own, save
from convsmith.locks import owned
from convsmith.optimize import RECOVERED, TRAINED, Evaluations, read_evaluations
from convsmith.plan import Replace
from convsmith.report import accuracy_table, falls, rate_line, read_net
from convsmith.train import (
    Epoch,
    Recipe,
    check_alone,
    digest,
    rank,
    recipe_for,
    recover,
    recovery_for,
    reestimate_norms,
    train,
)

MEASURED = ("top1", "top5", "loss", "images")


def replaced(loaded: Loaded) -> list[str]:
    """The layers that the plans of a net have put blocks in the place of."""
    return [edit.layer for plan in loaded.plans for edit in plan.edits if isinstance(edit, Replace)]


def train_model(
    terminal: Terminal,
    loaded: Loaded,
    images: Data,
    teacher: nn.Module | None,
    matched: Sequence[str],
    out: Path,
    resume: bool,
    changes: Mapping[str, Any],
) -> None:
    """Train a net by the recipe that suits it, changed by `changes`, and keep it with its accuracies in `out`."""
    trained = loaded.origin.trained
    recipe = (recovery_for if trained else recipe_for)(images, **changes)

    def watch(epoch: Epoch) -> None:
        """Tell of an epoch as soon as it is over."""
        terminal.epoch(loaded.name, recipe.epochs, epoch)

    log = _log(loaded, images, recipe.device, terminal)
    with _for_us(out):
        if trained and rank() == 0:
            log.begin(loaded, teacher)
        # In its own folder a net takes the run's weights when that is over.
        start = digest(loaded.model) if trained and not _in_place(loaded, out) else ""
        history = train(
            loaded.model, images, recipe, out=out, resume=resume, teacher=teacher, responses=matched, start=start,
            progress=watch, told=lambda found: terminal.step(rate_line(found)), steps=terminal.progress,
        )  # fmt: skip
        if rank() == 0:
            log.finish(RECOVERED if trained else TRAINED, history.final, kept=history.kept != 0)
            _keep(terminal, loaded, images, log, out)
    terminal.record(asdict(history))


def _keep(terminal: Terminal, loaded: Loaded, images: Data, log: Evaluations, out: Path, *told: str) -> None:
    """Write a net and its evaluations, and tell of them."""
    save(loaded.trained_on(images.mean, images.std, images.names), out)
    log.write(out)
    net = read_net(out)
    terminal.show(accuracy_table(net), *told, f"model: {out}")
    terminal.warn(*falls(net))


@contextmanager
def _for_us(out: Path) -> Iterator[None]:
    """Have a folder that is to hold a net, and nothing of another program in its place; of all processes, the first."""
    if rank() > 0:
        yield
        return
    with owned(out):
        check_own(out)
        read_evaluations(out)
        yield


def _log(loaded: Loaded, images: Data, device: str | None, terminal: Terminal) -> Evaluations:
    before = read_evaluations(loaded.folder) if loaded.folder else ()
    return Evaluations(images, device, before, terminal.progress)


def _in_place(loaded: Loaded, out: Path) -> bool:
    return loaded.folder is not None and loaded.folder.resolve() == out.resolve()


def recover_norms(
    terminal: Terminal, loaded: Loaded, images: Data, teacher: nn.Module | None, out: Path, place: Place
) -> None:
    """Estimate the statistics of a net's norms anew, and keep it with its accuracies in `out`."""
    log = _log(loaded, images, place.device, terminal)
    with _for_us(out):
        log.begin(loaded, teacher)
        terminal.progress("estimating norms anew", 0, 1)
        norms = reestimate_norms(loaded.model, images, teacher=teacher, seed=place.seed, device=place.device)
        log.renormed(loaded.model, norms.kept)
        verdict = "kept" if norms.kept else "worse on held-out images, so the old ones stay"
        sentence = f"statistics: {verdict} (loss {norms.before:.4g} -> {norms.after:.4g})"
        _keep(terminal, loaded, images, log, out, sentence)
    before, after = ({name: asdict(evaluation)[name] for name in MEASURED} for evaluation in log.told[-2:])
    terminal.record({"before": before, "final": after, "kept": norms.kept})


def tells_classes(loaded: Loaded, images: Data) -> bool:
    """Whether a net answers a number for each class of the data, and the data has classes."""
    if images.classes == UNLABELLED:
        return False
    shapes = [x for x in loaded.graph().shapes.items() if x[0] in loaded.graph().outputs]
    return [shape for _, shape in shapes] == [(1, len(images.classes))]


def match_teacher(
    terminal: Terminal,
    loaded: Loaded,
    images: Data,
    teacher: nn.Module,
    match: Sequence[str],
    out: Path,
    changes: Mapping[str, Any],
) -> None:
    """Have a net answer as its teacher does, whatever they answer, and keep it in `out`."""
    check_alone("train --no-labels of nets that tell no classes")
    recipe = replace(Recipe(epochs=10, batch_size=32, lr=None, weight_decay=0.0), **changes)
    with _for_us(out):
        recovered = recover(
            loaded.model, teacher, images, recipe, match=match, told=lambda probe: terminal.step(rate_line(probe)),
            steps=terminal.progress,
        )  # fmt: skip
        save(loaded.trained_on(images.mean, images.std), out)
    kept = (
        f"epoch {recovered.kept} of {len(recovered.judged)}" if recovered.kept else "the start, as no epoch was better"
    )
    terminal.show(
        f"distance to the teacher on held-out images: {recovered.start:.4g} -> {recovered.final:.4g} ({kept})",
        f"model: {out}",
    )
    terminal.record(asdict(recovered))
