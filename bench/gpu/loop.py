"""A fast training loop for many small runs: data on the device, bf16, channels_last, compiled where it pays.

One run is `fit`. It measures a step first and begins nothing that would not end in time; a run that was stopped goes on
from its last checkpoint.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convsmith as cs
from convsmith.data import Data, epoch_seed
from convsmith.errors import ConvsmithError
from convsmith.files import whole
from convsmith.train import SCHEDULES, Recipe
from convsmith.train.losses import objective
from convsmith.train.place import autocast

BORDER = 4  # black pixels that a crop may reach into
COMPILES = 60.0  # seconds that compiling may take, before it is known
WORTH_COMPILING = 30.0  # seconds of training left from which on it is tried
SAVE_EVERY = 20.0  # seconds between checkpoints
Step = Callable[[Tensor, Tensor, float], Tensor]


class LateError(Exception):
    """What was asked for would not end in time."""


@dataclass(frozen=True, eq=False)
class Lab:
    """Where cells are measured: data, device, the moment when all must be over, and a folder for checkpoints."""

    data: Data
    device: torch.device
    end: float
    work: Path
    say: Callable[[str], None] = print

    def clock(self) -> float:
        """Seconds, once the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return perf_counter()

    @property
    def compiles(self) -> bool:
        """Whether compiling may pay: small nets on a CPU wait for arithmetic, not for launches."""
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds until all must be over."""
        return self.end - self.clock()

    def require(self, seconds: float) -> None:
        """Raise LateError where so many seconds are not left."""
        if seconds > self.left:
            raise LateError(f"takes {seconds:.0f} s, and {max(self.left, 0):.0f} s are left")

    def state(self, key: str) -> Path:
        """The checkpoint of a run."""
        return self.work / f"{key.replace('/', '-').replace(' ', '-')}.pt"


@dataclass(frozen=True, eq=False)
class Pictures:
    """Training images on a device, bytes (n, h + 2 border, w + 2 border, c) with a black border, and labels (n,)."""

    images: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor
    border: int = BORDER

    def batches(self, size: int, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass in random order, cropped, mirrored and normalized: (b, c, h, w) in channels_last; no short rest."""
        generator = torch.Generator(self.images.device).manual_seed(epoch_seed(seed, epoch))
        order = torch.randperm(len(self.labels), generator=generator, device=self.images.device)
        for rows in order[: len(order) // size * size].split(size):
            crop = cropped(self.images, rows, self.border, generator)
            yield ((crop - self.mean) / self.std).permute(0, 3, 1, 2), self.labels[rows]


@lru_cache(maxsize=1)
def pictures_of(lab: Lab, count: int | None = None) -> Pictures:
    """The first `count` training images of a data set that is kept decoded, or all, on the device."""
    split, device = lab.data.train, lab.device
    images = F.pad(split.images[:count].to(device), (BORDER,) * 4).permute(0, 2, 3, 1).contiguous()
    mean, std = (255 * torch.tensor(value, device=device) for value in (lab.data.mean, lab.data.std))
    return Pictures(images, split.labels[:count].to(device), mean, std)


def cropped(images: Tensor, rows: Tensor, border: int, generator: torch.Generator) -> Tensor:
    """Windows of the images at `rows`, each at a place of its own, every second mirrored on average.

    images: (n, h + 2 border, w + 2 border, c); gives (b, h, w, c), copied once.
    """
    count, place = len(rows), images.device
    height, width = (side - 2 * border for side in images.shape[1:3])
    top, left = (torch.randint(2 * border + 1, (count, 1), generator=generator, device=place) for _ in range(2))
    down, across = top + torch.arange(height, device=place), left + torch.arange(width, device=place)
    mirrored = torch.rand(count, 1, generator=generator, device=place) < 0.5
    across = torch.where(mirrored, across.flip(1), across)
    return images[rows[:, None, None], down[:, :, None], across[:, None, :]]


@dataclass(eq=False)
class Run:
    """A run as it stands: the net, its optimizer, epochs that are over, their losses and seconds."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Write the checkpoint, whole."""
        with whole(path) as draft:
            state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            torch.save(state | {"epoch": self.epoch, "losses": self.losses, "seconds": self.seconds}, draft)

    def restore(self, path: Path, device: torch.device) -> None:
        """Take up what a checkpoint holds, if it is there."""
        if path.is_file():
            state = torch.load(path, map_location=device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.epoch, self.losses, self.seconds = state["epoch"], state["losses"], state["seconds"]


def fit(
    lab: Lab, model: nn.Module, pictures: Pictures, recipe: Recipe, key: str, *,
    teacher: nn.Module | None = None, then: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Train a net in place, and tell its test accuracy, losses, seconds and pace.

    `then` are epochs of further runs that are to follow, for which time must be left too. Raises LateError where it
    would not end in time: before it begins, or with its checkpoint written.
    """
    model.to(lab.device).to(memory_format=torch.channels_last)
    run = Run(model, sgd(model, recipe, lab.device))
    run.restore(lab.state(key), lab.device)
    pace: dict[str, Any] = {}
    if run.epoch < recipe.epochs:
        step, pace = paced(lab, run, pictures, recipe, teacher, then)
        with stopped_safely(run, lab.state(key)):
            train(lab, run, pictures, recipe, step, lab.state(key))
    told = cs.evaluate(model, lab.data.test, device=str(lab.device), batch_size=500, precision=recipe.precision)
    return {
        "top1": told.top1, "loss": told.loss, "epochs": run.epoch, "train_losses": [round(x, 4) for x in run.losses],
        "train_seconds": round(run.seconds, 2), "pace": pace,
    }  # fmt: skip


@contextmanager
def stopped_safely(run: Run, path: Path) -> Iterator[None]:
    """Have the checkpoint of the last whole epoch written where the time is over."""
    try:
        yield
    except LateError:
        run.save(path)
        raise


def train(lab: Lab, run: Run, pictures: Pictures, recipe: Recipe, step: Step, path: Path) -> None:
    """The epochs that are left; checkpoints in between and at the end."""
    saved = lab.clock()
    while run.epoch < recipe.epochs:
        began = lab.clock()
        run.losses.append(one_epoch(run, pictures, recipe, step))
        run.epoch += 1
        seconds = lab.clock() - began
        run.seconds += seconds
        lab.say(f"  epoch {run.epoch} of {recipe.epochs}: loss {run.losses[-1]:.3f}, {seconds:.1f} s")
        if run.epoch == recipe.epochs or lab.clock() - saved > SAVE_EVERY:
            run.save(path)
            saved = lab.clock()
        if run.epoch < recipe.epochs:
            lab.require((recipe.epochs - run.epoch) * seconds)


def one_epoch(run: Run, pictures: Pictures, recipe: Recipe, step: Step) -> float:
    """Take the steps of an epoch; its mean loss, looked at once: each look waits for the device."""
    torch.manual_seed(epoch_seed(recipe.seed, run.epoch))  # what dropout draws
    run.model.train()
    steps = len(pictures.labels) // recipe.batch_size
    total = torch.zeros((), device=pictures.labels.device)
    for number, (images, labels) in enumerate(pictures.batches(recipe.batch_size, recipe.seed, run.epoch)):
        share = SCHEDULES[recipe.schedule]((run.epoch + number / steps) / recipe.epochs)
        total += step(images, labels, (recipe.lr or 0) * share)
    mean = float(total) / max(1, steps)
    if not steps or not isfinite(mean):
        raise ConvsmithError(f"The loss of epoch {run.epoch + 1} is {mean} over {steps} steps; lower lr or batch size.")
    return mean


def sgd(model: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.SGD:
    """SGD with momentum; norms and biases get no weight decay."""
    kernels, others = ([p for p in model.parameters() if (p.ndim > 1) is wide] for wide in (True, False))
    groups = [{"params": kernels, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(
        groups, lr=recipe.lr or 0, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=device.type == "cuda"
    )


def step_of(
    net: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer, recipe: Recipe, device: torch.device,
    teacher: nn.Module | None,
) -> Step:  # fmt: skip
    """What takes one step at a rate and gives its loss, unseen; `net` may be compiled."""
    loss_of = objective(recipe, teacher)

    def step(images: Tensor, labels: Tensor, rate: float) -> Tensor:
        for group in optimizer.param_groups:
            group["lr"] = rate
        with autocast(device, recipe.precision):
            loss = loss_of(images, net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def paced(
    lab: Lab, run: Run, pictures: Pictures, recipe: Recipe, teacher: nn.Module | None, then: int
) -> tuple[Step, dict[str, Any]]:
    """The faster step, plain or compiled, and what was measured; raises LateError where neither would end in time."""
    steps = (recipe.epochs - run.epoch + then) * (len(pictures.labels) // recipe.batch_size)
    plain = step_of(run.model, run.optimizer, recipe, lab.device, teacher)
    seconds = timed(lab, run.model, pictures, recipe, teacher)
    told: dict[str, Any] = {"plain_ms": 1e3 * seconds}
    best = plain
    if lab.compiles and steps * seconds > WORTH_COMPILING:
        lab.require(min(steps * seconds, COMPILES + steps * seconds / 2))
        net, compiling, own = compiled(lab, run.model, pictures, recipe, teacher)
        told |= compiling
        if own < seconds:
            best, seconds = step_of(net, run.optimizer, recipe, lab.device, teacher), own
    told |= {"compiled": best is not plain, "images_s": recipe.batch_size / seconds}
    lab.require(steps * seconds)
    return best, told


def compiled(
    lab: Lab, model: nn.Module, pictures: Pictures, recipe: Recipe, teacher: nn.Module | None
) -> tuple[Any, dict[str, Any], float]:
    """A compiled net, what compiling took, and the seconds of its step: endless where it cannot be compiled."""
    torch._dynamo.config.recompile_limit = 256  # every net here runs the same code object; past the limit none compiles
    began, net = lab.clock(), torch.compile(model)
    try:
        seconds = timed(lab, model, pictures, recipe, teacher, net)
    except RuntimeError as error:  # dynamo's and inductor's errors are RuntimeErrors
        return net, {"compile_failed": f"{type(error).__name__}: {error}"[:200]}, float("inf")
    return net, {"compiled_ms": 1e3 * seconds, "compile_s": round(lab.clock() - began, 1)}, seconds


def timed(
    lab: Lab, model: nn.Module, pictures: Pictures, recipe: Recipe, teacher: nn.Module | None, net: Any = None
) -> float:
    """Seconds of a step with its batch, of several behind some untimed; the net's weights are as before."""
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    step = step_of(model if net is None else net, sgd(model, recipe, lab.device), recipe, lab.device, teacher)
    model.train()
    warm, readings = (5, 20) if lab.device.type == "cuda" else (1, 3)
    batches = endless(pictures, recipe)
    for _ in range(warm):
        step(*next(batches), 0.0)
    began = lab.clock()
    for _ in range(readings):
        step(*next(batches), 0.0)
    seconds = (lab.clock() - began) / readings
    model.load_state_dict(kept)
    return seconds


def endless(pictures: Pictures, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of pass after pass."""
    size = min(recipe.batch_size, len(pictures.labels))
    for epoch in count():
        yield from pictures.batches(size, recipe.seed, epoch)
