"""The training loop: one run of a recipe, resumable after every epoch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from time import perf_counter

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from convsmith.data import PLAIN, Data, epoch_seed
from convsmith.errors import ConvsmithError, DataError
from convsmith.train.checkpoint import Parts, State, resumed, write
from convsmith.train.evaluate import evaluate
from convsmith.train.losses import Objective, objective
from convsmith.train.place import autocast, check_fit, lent, pick_device
from convsmith.train.records import Epoch, Evaluation, History, Recipe, recipe_for
from convsmith.train.responses import Responses
from convsmith.train.schedules import SCHEDULES

CHECK_EVERY = 50  # steps between looks at the loss: each look waits for the GPU


@dataclass(frozen=True, eq=False)
class _Run:
    """What stays the same over the epochs; `net` is the model, wrapped where several processes share the work."""

    recipe: Recipe
    data: Data
    parts: Parts
    net: nn.Module
    loss_of: Objective
    accelerator: Accelerator
    device: torch.device


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
) -> History:
    """Train `model` in place and give its history; the final weights stay in it, on the device it came from.

    `recipe` defaults to `recipe_for(data)`. `out` gets history.jsonl and after each epoch a checkpoint, from which the
    same call goes on where it was stopped, on the CPU to the very same weights; a finished run comes back at once.
    `teacher` is a net whose answers the model learns too (Hinton et al., arXiv 1503.02531), and `responses` are modules
    whose outputs are to match the teacher's (FitNets, Romero et al., arXiv 1412.6550). `start` is what the model's
    weights are known by (`digest`): a run that began with others is not gone on with. `progress` is called after each
    epoch. Under `accelerate launch`, each process takes its share of every batch.

    Raises ConvsmithError when model and data do not fit, the loss diverges, or the checkpoint is of another run.
    """
    recipe = recipe or recipe_for(data)
    with _prepared(model, data, recipe, teacher, responses) as run:
        fresh = State(recipe, data.name, teacher is not None, tuple(responses), start)
        state = resumed(out, fresh, run.parts, resume)
        for epoch in range(len(state.epochs), recipe.epochs):
            began = perf_counter()
            rate, loss, top1 = _train_epoch(run, epoch)
            test = evaluate(run.parts.kept, data.test, device=str(run.device))
            _check_finite(test.loss, epoch, rate)
            record = Epoch(epoch + 1, rate, loss, top1, test.loss, test.top1, test.top5, perf_counter() - began)
            state = replace(state, epochs=(*state.epochs, record))
            if out and run.accelerator.is_main_process:
                write(out, state, run.parts)
            if progress:
                progress(record)
        model.load_state_dict(run.parts.kept.state_dict())
        return History(state.epochs, _final(run, state.epochs))


def _train_epoch(run: _Run, epoch: int) -> tuple[float, float, float]:
    """Take the steps of one epoch; give its last learning rate, mean loss and top-1 accuracy."""
    recipe, optimizer, rank = run.recipe, run.parts.optimizer, run.accelerator.process_index
    torch.manual_seed(epoch_seed(epoch_seed(recipe.seed, epoch), rank))  # what dropout draws
    run.net.train()
    rate, steps = 0.0, max(1, len(run.data.train) // recipe.batch_size)
    totals = torch.zeros(3, dtype=torch.float64, device=run.device)  # loss, hits, images
    for step, (images, labels) in enumerate(_batches(run, epoch)):
        rate = recipe.lr * SCHEDULES[recipe.schedule](min(1.0, (epoch + step / steps) / recipe.epochs))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with autocast(run.device, recipe.precision):
            logits = run.net(images)
            loss = run.loss_of(images, logits, labels)
        optimizer.zero_grad()
        run.accelerator.backward(loss)
        optimizer.step()
        run.parts.update_average()
        count = loss.new_tensor(len(labels))
        totals += torch.stack([loss.detach() * count, (logits.argmax(1) == labels).sum(), count])
        if step % CHECK_EVERY == CHECK_EVERY - 1:
            _check_finite(totals[0].item(), epoch, rate)
    loss_sum, hits, count = run.accelerator.reduce(totals, reduction="sum").tolist()
    if not count:
        raise DataError(f"The training split gave no batch of {recipe.batch_size} images; lower the batch size.")
    return rate, loss_sum / count, hits / count


def _batches(run: _Run, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    recipe, data = run.recipe, run.data
    share = run.accelerator.process_index, run.accelerator.num_processes
    augment = data.augment if recipe.augment else PLAIN
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    for images, labels in data.train.shuffled(
        recipe.batch_size, seed=recipe.seed, epoch=epoch, augment=augment, share=share, device=run.device
    ):
        yield images.contiguous(memory_format=layout), labels


@contextmanager
def _prepared(
    model: nn.Module, data: Data, recipe: Recipe, teacher: nn.Module | None, responses: Sequence[str]
) -> Iterator[_Run]:
    """Bring everything to the device; at the end nets, but for their weights, and torch's generator are as before."""
    # One process may train in several precisions, which Accelerator's own setting does not allow: autocast is torch's.
    accelerator = Accelerator(mixed_precision="no", device_placement=False)
    device = accelerator.device if accelerator.num_processes > 1 else pick_device(recipe.device)
    if recipe.batch_size % accelerator.num_processes:
        shared = f"{recipe.batch_size} cannot be shared evenly by {accelerator.num_processes} processes"
        raise ConvsmithError(f"Recipe: batch_size {shared}; make it a multiple of them.")
    with ExitStack() as borrowed:
        borrowed.enter_context(torch.random.fork_rng(devices=()))
        for net in (model, teacher) if teacher else (model,):
            layout = torch.channels_last if recipe.channels_last else torch.preserve_format
            borrowed.enter_context(lent(net, device, layout))
            check_fit(net, data.shape, len(data.classes), device)
        parts = Parts(model, _sgd(model, recipe), _average(model, recipe))
        net = accelerator.prepare_model(model)
        borrowed.callback(vars(net).pop, "_is_accelerate_prepared")  # a net with this mark is not wrapped again
        matched = None
        if responses:
            if teacher is None:
                raise ConvsmithError("Responses are matched with a teacher's; give one.")
            matched = Responses(model, teacher, responses)
            borrowed.enter_context(matched.watched())
        yield _Run(recipe, data, parts, net, objective(recipe, teacher, matched), accelerator, device)


def _sgd(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise ConvsmithError("The net has no parameters that can be trained; unfreeze some.")
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)


def _average(model: nn.Module, recipe: Recipe) -> AveragedModel | None:
    if recipe.ema is None:
        return None
    blend = get_ema_multi_avg_fn(recipe.ema)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=blend, use_buffers=True)


def _check_finite(loss: float, epoch: int, rate: float) -> None:
    if not isfinite(loss):
        where = f"epoch {epoch + 1} at learning rate {rate:.3g}"
        raise ConvsmithError(f"The loss became {loss} in {where}; train with a lower lr, or with precision fp32.")


def _final(run: _Run, epochs: tuple[Epoch, ...]) -> Evaluation:
    if not epochs:
        return evaluate(run.parts.model, run.data.test, device=str(run.device))
    return Evaluation(epochs[-1].test_top1, epochs[-1].test_top5, epochs[-1].test_loss, len(run.data.test))
