"""What a step minimizes: cross-entropy with the labels, and the distance to a teacher's answer."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convsmith.train.records import Recipe
from convsmith.train.responses import Responses

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]


def distance(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """T² KL(softmax(taught / T) || softmax(logits / T)), mean over n logits (n, classes) (Hinton et al., 2015).

    >>> distance(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]), 4.0).abs().item() < 1e-6
    True
    """
    student, teacher = (F.log_softmax(outputs.float() / temperature, dim=1) for outputs in (logits, taught))
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def objective(recipe: Recipe, teacher: nn.Module | None, responses: Responses | None = None) -> Objective:
    """Give the loss of (images, logits, labels): (1 - a) cross-entropy + a distance; a is 0 without a teacher.

    With `responses`, the distance of layers' answers is added, by the recipe's `response_weight`.
    """

    def cross_entropy(images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)

    if teacher is None:
        return cross_entropy

    def taught(images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            answer = teacher(images)
        share = recipe.teacher_weight
        apart = distance(logits, answer, recipe.temperature)
        loss = (1 - share) * cross_entropy(images, logits, labels) + share * apart
        return loss if responses is None else loss + recipe.response_weight * responses.distance()

    return taught
