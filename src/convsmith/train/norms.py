"""BatchNorm statistics estimated anew: the cheap first step of recovery, without labels or gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from convsmith.data import Data
from convsmith.train.losses import distance
from convsmith.train.place import lent, pick_device

HELD_OUT = 5  # one in so many of the images judges, the others are estimated from


@dataclass(frozen=True)
class Reestimated:
    """What averaging BatchNorm statistics came to.

    Attributes:
        before: The loss on held-out training images with the old statistics.
        after: The same with the new ones.
    """

    before: float
    after: float

    @property
    def kept(self) -> bool:
        """They are where the loss did not get worse."""
        return self.after <= self.before


def reestimate_norms(
    model: nn.Module,
    data: Data,
    *,
    images: int = 1000,
    batch_size: int = 100,
    teacher: nn.Module | None = None,
    seed: int = 0,
    device: str | None = None,
) -> Reestimated:
    """Average every BatchNorm's mean and variance over training images, and keep them unless a held-out check fails.

    Replaced kernels shift what the norms behind them see. Weights stay as they are. A model without such norms stays as
    it is.

    Args:
        model: The module, changed in place.
        data: A data set, as `load_data` gives.
        images: How many training images to average over.
        batch_size: Images at once.
        teacher: The net whose answers the check compares with, which needs no labels. Without one the check is the
            cross-entropy.
        seed: Draws the images.
        device: `cpu` or `cuda`; None for the GPU where there is one.

    Returns:
        The loss on held-out training images before and after, and whether the new statistics were kept.

    Raises:
        ConvsmithError: When the device is not there.

    >>> import convsmith as cs
    >>> net = cs.build("resnet20", classes=10)
    >>> reestimate_norms(net, cs.load_data("digits"), images=100, batch_size=40).kept
    True
    """
    place = pick_device(device)
    held = max(1, images // HELD_OUT)
    drawn = data.train.shuffled(min(images + held, len(data.train)), seed=seed, epoch=0, device=place)
    pictures, labels = next(drawn)
    held = min(held, len(pictures) - 1)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    with lent(model, place), torch.no_grad():
        answer = _answer(teacher, pictures[:held], place)
        before = _loss(model, pictures[:held], labels[:held], answer)
        _average(model, norms, torch.split(pictures[held:], batch_size))
        result = Reestimated(before, _loss(model, pictures[:held], labels[:held], answer))
        if not result.kept:
            model.load_state_dict(kept)
    return result


def _average(model: nn.Module, norms: list[_BatchNorm], batches: tuple[Tensor, ...]) -> None:
    """Run batches with the norms alone in training mode and their statistics the plain mean over batches."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for batch in batches:
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def _answer(teacher: nn.Module | None, images: Tensor, place: torch.device) -> Tensor | None:
    if teacher is None:
        return None
    with lent(teacher, place):
        answer: Tensor = teacher.eval()(images)
    return answer


def _loss(model: nn.Module, images: Tensor, labels: Tensor, answer: Tensor | None) -> float:
    logits = model.eval()(images)
    return (F.cross_entropy(logits, labels) if answer is None else distance(logits, answer, 1.0)).item()
