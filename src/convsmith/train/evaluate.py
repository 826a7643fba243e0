"""Accuracy and loss of a net on a split."""

from typing import overload

import torch
from torch import nn
from torch.nn import functional as F

from convsmith.data import Split
from convsmith.errors import DataError
from convsmith.progress import Progress, silent
from convsmith.train.place import autocast, check_fit, lent, pick_device
from convsmith.train.processes import Processes
from convsmith.train.records import Evaluation
from convsmith.train.tasks import Batches, Measured, Metric, measure


@overload
def evaluate(
    model: nn.Module,
    split: Split,
    *,
    device: str | None = None,
    batch_size: int = 256,
    precision: str = "fp32",
    among: Processes | None = None,
    progress: Progress = silent,
) -> Evaluation: ...


@overload
def evaluate(
    model: nn.Module,
    split: Split | Batches,
    *,
    metric: Metric,
    device: str | None = None,
    batch_size: int = 256,
    progress: Progress = silent,
) -> Measured: ...


def evaluate(
    model: nn.Module,
    split: Split | Batches,
    *,
    device: str | None = None,
    batch_size: int = 256,
    precision: str = "fp32",
    among: Processes | None = None,
    progress: Progress = silent,
    metric: Metric | None = None,
) -> Evaluation | Measured:
    """Measure top-1 and top-5 accuracy and mean cross-entropy over a whole split; the model comes back as it was.

    Args:
        model: The module.
        split: Labelled images, as `load_data(..).test`.
        device: `cpu` or `cuda`; None for the GPU where there is one.
        batch_size: Images at once.
        precision: `fp32`, or `bf16` for mixed precision.
        among: Processes that share the images, on their own devices; each is told the sum.
        progress: Told how many images are over.
        metric: What to measure instead, a function of outputs and targets of a batch that gives their mean. `split` may
            then be any iterable of batches (images, targets).

    Returns:
        Accuracies in [0, 1], cross-entropy in nats, and the number of images. With fewer than five classes, top-5
        counts all of them. With a metric its mean and the number of images.

    Raises:
        ConvsmithError: When images or classes do not fit the model.

    >>> import convsmith as cs
    >>> found = evaluate(cs.build("resnet20", classes=10), cs.load_data("digits").test, device="cpu")
    >>> found.images, 0 <= found.top1 <= found.top5 <= 1
    (360, True)
    """
    if metric is not None:
        return measure(model, split, metric, device, batch_size, progress)
    if not isinstance(split, Split):
        raise DataError(f"evaluate: got a {type(split).__name__}; give a split as load_data(..).test, or metric= too.")
    place = among.device if among else pick_device(device)
    share = among.share if among else (0, 1)
    totals = torch.zeros(4, dtype=torch.float64, device=place)  # loss, top-1, top-5, images
    done = 0
    with lent(model, place), torch.no_grad():
        check_fit(model, split.shape, split.classes, place)
        for batch, labels in split.batches(batch_size, share=share, device=place):
            progress("evaluating", done, len(split))
            done += len(labels) * share[1]
            with autocast(place, precision):
                logits = model(batch).float()
            hits = logits.topk(min(5, logits.shape[1])).indices == labels.unsqueeze(1)  # (n, 5)
            loss = F.cross_entropy(logits, labels, reduction="sum")
            totals += torch.stack([loss.double(), hits[:, 0].sum(), hits.sum(), loss.new_tensor(len(labels))])
    loss_sum, top1, top5, images = (among.total(totals) if among else totals).tolist()
    return Evaluation(top1 / images, top5 / images, loss_sum / images, int(images))
