"""Training and judging by functions of one's own: any outputs, any targets, any loss."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from convsmith.data import PLAIN, Data, Split, epoch_seed
from convsmith.errors import DataError
from convsmith.progress import Progress, silent
from convsmith.train.checkpoint import copied
from convsmith.train.optimizer import check_finite, sgd
from convsmith.train.place import autocast, lent, pick_device
from convsmith.train.probe import LEAST, SHARE, STEPS, Probe, find_rate
from convsmith.train.records import USUAL, Recipe
from convsmith.train.schedules import SCHEDULES

Loss = Callable[[Any, Any], Tensor]  # of outputs and targets of a batch, its mean
Metric = Callable[[Any, Any], float | Tensor]  # the same, the more the better
Batches = Iterable[Any]  # each a pair of images and targets
Told = Callable[[Probe], None]


@dataclass(frozen=True)
class Measured:
    """What a net attains by a function of one's own.

    Attributes:
        value: Its mean over all images.
        images: How many were counted.
    """

    value: float
    images: int


@dataclass(frozen=True)
class Outcome:
    """What a training by one's own loss came to.

    Attributes:
        start: What the weights at the start were judged by: the metric, or without one the mean loss.
        judged: The same after each epoch.
        final: The same of the weights that were kept.
        kept: The epoch that they are of, 0 for the start.
        lr: The schedule's largest learning rate.
    """

    start: float
    judged: tuple[float, ...]
    final: float
    kept: int
    lr: float


@dataclass(frozen=True, eq=False)
class Task:
    """What is trained for: batches of an epoch, how many, the loss of one, and a judge (less is better).

    `sign` is -1 where the judge negates what is told. `training` is the mode that the net runs in. `clip` is the
    largest norm of a step's gradients, all together. `held` is the loss on images that no batch holds, where there
    are such.
    """

    batches: "Passes"
    steps: int
    loss_of: Callable[[Any], Tensor]
    judge: Callable[[], float]
    sign: float = 1.0
    training: bool = True
    clip: float = inf
    held: Callable[[], float] | None = None


def measure(
    model: nn.Module, data: Split | Batches, metric: Metric, device: str | None, batch_size: int, progress: Progress
) -> Measured:
    """The mean of a metric over batches, weighted by their images; `evaluate` gives it."""
    place = pick_device(device)
    with lent(model, place), torch.no_grad():
        model.eval()
        total, images = 0.0, 0
        for batch, targets in _passed(data, batch_size, place):
            progress("evaluating", images, images + len(batch))
            total += float(metric(model(_moved(batch, place)), _moved(targets, place))) * len(batch)
            images += len(batch)
    if not images:
        raise DataError("The data gave no batch to judge; give at least one of images and targets.")
    return Measured(total / images, images)


def train_task(
    model: nn.Module,
    data: "Data | tuple[Batches, Batches]",
    recipe: Recipe,
    loss: Loss,
    metric: Metric | None,
    told: Told | None,
    steps: Progress,
) -> Outcome:
    """Train by a loss of one's own; see `train`."""
    place = pick_device(recipe.device)
    counted = metric if metric is not None else loss
    sign = 1.0 if metric is None else -1.0
    batches, test = _own(data, recipe, place) if isinstance(data, Data) else _given(data)

    def loss_of(batch: Any) -> Tensor:
        images, targets = (_moved(part, place) for part in batch)
        return loss(model(images), targets)

    def judge() -> float:
        return sign * measure(model, test, counted, str(place), recipe.batch_size, silent).value

    return fit(model, recipe, Task(batches, _count(batches), loss_of, judge, sign), told, steps)


Passes = Callable[[int], Iterator[Any]]  # the batches of an epoch


def _own(data: Data, recipe: Recipe, place: torch.device) -> tuple[Passes, Split]:
    """The passes of a loaded data set, and its test split."""
    augment = data.augment if recipe.augment else PLAIN

    def batches(epoch: int) -> Iterator[Any]:
        return data.train.shuffled(recipe.batch_size, seed=recipe.seed, epoch=epoch, augment=augment, device=place)

    return batches, data.test


def _given(data: tuple[Batches, Batches]) -> tuple[Passes, Batches]:
    """Passes over batches of one's own, and those that judge."""
    train, test = data
    return lambda epoch: iter(train), test


def _count(batches: Passes) -> int:
    """How many batches an epoch has. Raises ConvsmithError where it has none."""
    count = sum(1 for _ in batches(0))
    if not count:
        raise DataError("The training data gave no batch; give at least one of images and targets.")
    return count


def fit(model: nn.Module, recipe: Recipe, task: Task, told: Told | None = None, steps: Progress = silent) -> Outcome:
    """Take the steps of a recipe; with `keep_best` the weights stay that are judged best, perhaps those of the start.

    Raises ConvsmithError where the loss diverges, and leaves the weights of the last epoch that was kept.
    """
    place = pick_device(recipe.device)
    with ExitStack() as held:
        held.enter_context(torch.random.fork_rng(devices=()))
        held.enter_context(lent(model, place))
        best, judged = copied(model.state_dict()), [task.judge()]
        held.callback(model.load_state_dict, best)  # where it stops halfway, too
        rate = recipe.lr if recipe.lr is not None else _found(model, recipe, task, told)
        optimizer, kept = sgd(model, recipe), 0
        for epoch in range(recipe.epochs):
            _epoch(model, optimizer, recipe, task, epoch, rate, steps)
            judged.append(task.judge())
            if not recipe.keep_best or judged[-1] < judged[kept]:
                best.update(copied(model.state_dict()))
                kept = epoch + 1
    values = [task.sign * value for value in judged]
    return Outcome(values[0], tuple(values[1:]), values[kept], kept, rate)


def _epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, recipe: Recipe, task: Task, epoch: int, top: float,
    told: Progress,
) -> None:  # fmt: skip
    torch.manual_seed(epoch_seed(recipe.seed, epoch))
    model.train(task.training)
    for step, batch in enumerate(task.batches(epoch)):
        told(f"training, epoch {epoch + 1} of {recipe.epochs}", epoch * task.steps + step, recipe.epochs * task.steps)
        share = min(1.0, (epoch + step / task.steps) / recipe.epochs)
        rate = top * SCHEDULES[recipe.schedule](share)
        check_finite(_step(model, optimizer, task, batch, rate, recipe.precision), epoch, rate)


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, task: Task, batch: Any, rate: float, precision: str
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate
    with autocast(next(model.parameters()).device, precision):
        loss = task.loss_of(batch)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), task.clip)
    optimizer.step()
    return float(loss.detach())


def _found(model: nn.Module, recipe: Recipe, task: Task, told: Told | None) -> float:
    """The learning rate found in short, from the weights as they are; some batches judge where no images are held."""
    rest = list(islice(task.batches(0), STEPS))
    judges = [] if task.held else [rest.pop() for _ in range(max(1, len(rest) // SHARE)) if len(rest) > 1]
    begin, count = copied(model.state_dict()), max(LEAST, len(rest))

    def judged() -> float:
        model.eval()
        with torch.no_grad():
            return task.held() if task.held else sum(float(task.loss_of(batch)) for batch in judges) / len(judges)

    def loss_after(rate: float) -> float:
        torch.manual_seed(recipe.seed)
        model.train(task.training)
        optimizer = sgd(model, recipe)
        for step, batch in enumerate(islice(cycle(rest), count)):
            share = SCHEDULES[recipe.schedule](step / count)
            _step(model, optimizer, task, batch, rate * share, recipe.precision)
        loss = judged()
        model.load_state_dict(begin)
        return loss

    able = task.held or judges
    probe = find_rate(USUAL, judged(), loss_after) if able else find_rate(USUAL, inf, lambda rate: inf)
    if told:
        told(probe)
    return probe.rate


def _passed(data: Split | Batches, size: int, place: torch.device) -> Iterator[Any]:
    return data.batches(size, device=place) if isinstance(data, Split) else iter(data)


def _moved(value: Any, place: torch.device) -> Any:
    """Tensors of a batch on a device, in lists, tuples and dictionaries too."""
    return tree_map_only(Tensor, lambda tensor: tensor.to(place), value)
