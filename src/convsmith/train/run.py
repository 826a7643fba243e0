"""A run of training made ready: the model, a teacher and data on a device, and given back at the end."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from convsmith.data import Data
from convsmith.errors import ConvsmithError
from convsmith.train.checkpoint import Parts
from convsmith.train.losses import Objective, objective
from convsmith.train.optimizer import sgd
from convsmith.train.place import check_fit, lent
from convsmith.train.processes import Processes, joined
from convsmith.train.records import Recipe
from convsmith.train.responses import Responses
from convsmith.train.synced import synced_norms


@dataclass(frozen=True, eq=False)
class Run:
    """What stays the same over the epochs; `net` is the model, wrapped where several processes share the work."""

    recipe: Recipe
    data: Data
    parts: Parts
    net: nn.Module
    loss_of: Objective
    judge: Objective
    processes: Processes

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.processes.device


@contextmanager
def prepared(
    model: nn.Module, data: Data, recipe: Recipe, teacher: nn.Module | None, responses: Sequence[str]
) -> Iterator[Run]:
    """Bring everything to the device; at the end nets, but for their weights, and torch's generator are as before."""
    # One process may train in several precisions, which Accelerator's own setting does not allow: autocast is torch's.
    processes = joined(recipe.device)
    number = processes.share[1]
    if recipe.batch_size % number or len(data.train) < number:
        shared = f"{min(recipe.batch_size, len(data.train))} cannot be shared evenly by {number} processes"
        raise ConvsmithError(f"Recipe: batch_size {shared}; make it a multiple of them.")
    with ExitStack() as borrowed:
        borrowed.enter_context(torch.random.fork_rng(devices=()))
        for net in (model, teacher) if teacher else (model,):
            layout = torch.channels_last if recipe.channels_last else torch.preserve_format
            borrowed.enter_context(lent(net, processes.device, layout))
            check_fit(net, data.shape, len(data.classes), processes.device)
        parts = Parts(model, sgd(model, recipe), _average(model, recipe))
        net = processes.accelerator.prepare_model(model)
        borrowed.callback(vars(net).pop, "_is_accelerate_prepared")  # a net with this mark is not wrapped again
        matched, plain = None, replace(recipe, label_smoothing=0.0)
        if responses:
            if teacher is None:
                raise ConvsmithError("Responses are matched with a teacher's; give one.")
            matched = Responses(model, teacher, responses)
            borrowed.enter_context(matched.watched())
        if recipe.sync_norms and processes.several:
            borrowed.enter_context(synced_norms(model))
        yield Run(recipe, data, parts, net, objective(recipe, teacher, matched), objective(plain, teacher), processes)


def _average(model: nn.Module, recipe: Recipe) -> AveragedModel | None:
    if recipe.ema is None:
        return None
    blend = get_ema_multi_avg_fn(recipe.ema)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=blend, use_buffers=True)
