"""The training loop: one run of a recipe, resumable after every epoch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from math import inf
from pathlib import Path
from time import perf_counter
from typing import overload

import torch
from torch import Tensor, nn

from convsmith.data import PLAIN, Data, epoch_seed
from convsmith.errors import ConvsmithError, DataError
from convsmith.locks import owned
from convsmith.progress import Progress, silent
from convsmith.train.checkpoint import State, copied, resumed, write
from convsmith.train.evaluate import evaluate
from convsmith.train.optimizer import check_finite, sgd
from convsmith.train.place import autocast
from convsmith.train.probe import Held, Probe, find_rate
from convsmith.train.processes import together
from convsmith.train.records import USUAL, Epoch, Evaluation, History, Recipe, recipe_for
from convsmith.train.run import Run, prepared
from convsmith.train.schedules import SCHEDULES
from convsmith.train.tasks import Batches, Loss, Metric, Outcome, train_task

CHECK_EVERY = 50  # steps between looks at the loss: each look waits for the GPU


@overload
def train(
    model: nn.Module,
    data: Data,
    recipe: Recipe | None = None,
    *,
    out: Path | None = None,
    resume: bool = True,
    teacher: nn.Module | None = None,
    responses: Sequence[str] = (),
    start: str = "",
    progress: Callable[[Epoch], None] | None = None,
    told: Callable[[Probe], None] | None = None,
    steps: Progress = silent,
) -> History: ...


@overload
def train(
    model: nn.Module,
    data: Data | tuple[Batches, Batches],
    recipe: Recipe | None = None,
    *,
    loss: Loss,
    metric: Metric | None = None,
    told: Callable[[Probe], None] | None = None,
    steps: Progress = silent,
) -> Outcome: ...


def train(
    model: nn.Module,
    data: Data | tuple[Batches, Batches],
    recipe: Recipe | None = None,
    *,
    out: Path | None = None,
    resume: bool = True,
    teacher: nn.Module | None = None,
    responses: Sequence[str] = (),
    start: str = "",
    progress: Callable[[Epoch], None] | None = None,
    told: Callable[[Probe], None] | None = None,
    steps: Progress = silent,
    loss: Loss | None = None,
    metric: Metric | None = None,
) -> History | Outcome:
    """Train `model` in place; the final weights stay in it, on the device it came from.

    Under torchrun or `accelerate launch`, each process takes its share of every batch. The first alone reads and writes
    `out`.

    Args:
        model: The module.
        data: A data set, as `load_data` gives.
        recipe: How to train; by default `recipe_for(data)`.
        out: A folder for history.jsonl and, after each epoch, a checkpoint. The same call goes on from there where it
            was stopped, on the CPU to the very same weights. A finished run comes back at once.
        resume: Whether to go on from a checkpoint in `out`.
        teacher: A net whose answers the model learns too (Hinton et al., arXiv 1503.02531).
        responses: Modules whose outputs are to match the teacher's (FitNets, Romero et al., arXiv 1412.6550).
        start: What the model's weights are known by (`digest`); a run that began with others is not gone on with.
        progress: Called after each epoch.
        told: Called when a learning rate was found.
        steps: Called after each step, with how many of how many are over.
        loss: A loss of one's own, of outputs and targets of a batch. `data` may then be two iterables of batches
            (images, targets) of any kind, to train on and to judge. `out`, a teacher and `progress` are not for it.
        metric: Of the same, what judges then, the more the better; by default the loss does.

    Returns:
        All epochs, and the evaluation of the final weights. With a loss of one's own, what judged at the start, after
        each epoch, and of the weights kept.

    Raises:
        ConvsmithError: When model and data do not fit, the loss diverges, or the checkpoint is of another run.

    >>> import convsmith as cs
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    >>> history = cs.train(net, cs.load_data("digits"), cs.Recipe(epochs=1, device="cpu"))
    >>> len(history.epochs), history.final.images
    (1, 360)
    """
    if loss is not None:
        if out is not None or teacher is not None or responses:
            raise ConvsmithError("train: a loss of one's own goes with no out, teacher or responses; leave them out.")
        return train_task(model, data, recipe or Recipe(), loss, metric, told, steps)
    if metric is not None or not isinstance(data, Data):
        raise ConvsmithError(
            "train: a metric, or batches of one's own, need a loss; give loss=, of outputs and targets."
        )
    recipe = recipe or recipe_for(data)
    with ExitStack() as held:
        held.enter_context(together())
        run = held.enter_context(prepared(model, data, recipe, teacher, responses))
        if out is not None and run.processes.first:
            held.enter_context(owned(out))
        fresh = State(recipe, data.name, teacher is not None, tuple(responses), start)
        state = _begun(run, _resumed(run, out, fresh, resume), told, steps)
        for epoch in range(len(state.epochs), recipe.epochs):
            record = _epoch(run, epoch, state.lr or USUAL, steps)
            state = _judged(run, replace(state, epochs=(*state.epochs, record)))
            if out and run.processes.first:
                write(out, state, run.parts)
            if progress:
                progress(record)
        model.load_state_dict(run.parts.result())
        return History(state.epochs, _final(run, state), state.best, state.lr, state.before)


def _resumed(run: Run, out: Path | None, fresh: State, resume: bool) -> State:
    """The state of the checkpoint, read by the first process and told to all, or `fresh` where there is none."""

    def read() -> tuple[State, dict[str, Tensor]]:
        state = resumed(out, fresh, run.parts, resume)
        return state, run.parts.tensors() | run.parts.bests() if state.epochs and run.processes.several else {}

    state, tensors = run.processes.from_first(read)
    if tensors and not run.processes.first:
        run.parts.restore(tensors)
    if state.best is not None and not run.parts.best:
        run.parts.remember()
    return state


def _begun(run: Run, state: State, told: Callable[[Probe], None] | None, steps: Progress) -> State:
    """A fresh run's start: judged where it may be what is kept, and a learning rate found where none is given."""
    recipe = run.recipe
    if state.epochs or not recipe.epochs:
        return state
    if recipe.keep_best:
        run.parts.remember()
        state = replace(
            state, best=0, before=evaluate(run.parts.model, run.data.test, among=run.processes, progress=steps)
        )
    if recipe.lr is not None:
        return replace(state, lr=recipe.lr)
    probe = _find_rate(run)
    if told:
        told(probe)
    return replace(state, lr=probe.rate)


def _epoch(run: Run, epoch: int, top: float, told: Progress) -> Epoch:
    """One epoch, and how its weights do on the test split."""
    began = perf_counter()
    rate, loss, top1 = _train_epoch(run, epoch, top, told)
    run.processes.agree(run.parts.model)
    run.processes.agree(run.parts.kept)
    test = evaluate(run.parts.kept, run.data.test, among=run.processes, progress=told)
    check_finite(test.loss, epoch, rate)
    return Epoch(epoch + 1, rate, loss, top1, test.loss, test.top1, test.top5, perf_counter() - began)


def _judged(run: Run, state: State) -> State:
    """Remember an epoch's weights where they are the best so far."""
    images = len(run.data.test)
    best = state.judged(images)
    if state.best is None or best is None or not state.epochs[-1].evaluation(images).beats(best):
        return state
    run.parts.remember()
    return replace(state, best=len(state.epochs))


def _train_epoch(run: Run, epoch: int, top: float, told: Progress) -> tuple[float, float, float]:
    """Take the steps of one epoch; give its last learning rate, mean loss and top-1 accuracy."""
    recipe, rank = run.recipe, run.processes.share[0]
    torch.manual_seed(epoch_seed(epoch_seed(recipe.seed, epoch), rank))  # what dropout draws
    run.net.train()
    rate, steps = 0.0, max(1, len(run.data.train) // recipe.batch_size)
    totals = torch.zeros(3, dtype=torch.float64, device=run.device)  # loss, hits, images
    for step, (images, labels) in enumerate(_batches(run, epoch)):
        told(f"training, epoch {epoch + 1} of {recipe.epochs}", epoch * steps + step, recipe.epochs * steps)
        rate = top * SCHEDULES[recipe.schedule](min(1.0, (epoch + step / steps) / recipe.epochs))
        totals += _step(run, run.parts.optimizer, images, labels, rate)
        run.parts.update_average()
        if step % CHECK_EVERY == CHECK_EVERY - 1:
            check_finite(totals[0].item(), epoch, rate)
    loss_sum, hits, count = run.processes.total(totals).tolist()
    if not count:
        raise DataError(f"The training split gave no batch of {recipe.batch_size} images; lower the batch size.")
    return rate, loss_sum / count, hits / count


def _step(run: Run, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, rate: float) -> Tensor:
    """Take a step at a rate; give the sum of losses, the hits, and the images of this process."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    with autocast(run.device, run.recipe.precision):
        logits = run.net(images)
        loss = run.loss_of(images, logits, labels)
    optimizer.zero_grad()
    run.processes.accelerator.backward(loss)
    optimizer.step()
    count = loss.new_tensor(len(labels))
    return torch.stack([loss.detach() * count, (logits.argmax(1) == labels).sum(), count])


def _find_rate(run: Run) -> Probe:
    """Try learning rates in short from the weights as they are, which come back; the images held out judge."""
    recipe, processes, usual = run.recipe, run.processes, recipe_for(run.data, device="cpu").lr or USUAL
    held = Held.of(len(run.data.train), recipe.batch_size, recipe.epochs, processes.share[1])
    if held is None:
        return find_rate(usual, inf, lambda rate: inf)
    parting = run.data, recipe.seed, processes.share, run.device
    judges = held.judging(*parting)
    begin = copied(run.parts.model.state_dict())
    augment = run.data.augment if recipe.augment else PLAIN

    def loss_after(rate: float) -> float:
        torch.manual_seed(epoch_seed(recipe.seed, processes.share[0]))
        run.net.train()
        optimizer = sgd(run.parts.model, recipe)
        for step, (images, labels) in enumerate(held.training(*parting, augment)):
            _step(run, optimizer, _laid(run, images), labels, rate * SCHEDULES[recipe.schedule](step / held.steps))
        loss = _held_loss(run, judges)
        run.parts.model.load_state_dict(begin)
        return loss

    return find_rate(usual, _held_loss(run, judges), loss_after)


@torch.no_grad()
def _held_loss(run: Run, judges: Sequence[tuple[Tensor, Tensor]]) -> float:
    """The mean loss of the model, as it is used, on batches of all processes."""
    run.processes.agree(run.parts.model)
    model = run.parts.model.eval()
    totals = torch.zeros(2, dtype=torch.float64, device=run.device)
    for images, labels in judges:
        loss = run.judge(images, model(images), labels)
        totals += torch.stack([loss * len(labels), loss.new_tensor(len(labels))])
    loss_sum, count = run.processes.total(totals).tolist()
    return float(loss_sum / count)


def _batches(run: Run, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    recipe, data = run.recipe, run.data
    augment = data.augment if recipe.augment else PLAIN
    for images, labels in data.train.shuffled(
        recipe.batch_size, seed=recipe.seed, epoch=epoch, augment=augment, share=run.processes.share, device=run.device
    ):
        yield _laid(run, images), labels


def _laid(run: Run, images: Tensor) -> Tensor:
    """Images in the memory layout of the recipe."""
    return images.contiguous(memory_format=torch.channels_last if run.recipe.channels_last else torch.contiguous_format)


def _final(run: Run, state: State) -> Evaluation:
    if not state.epochs:
        return evaluate(run.parts.model, run.data.test, among=run.processes)
    return state.judged(len(run.data.test)) or state.epochs[-1].evaluation(len(run.data.test))
