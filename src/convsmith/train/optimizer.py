"""What takes the steps: SGD on all that can be trained, norms and biases without decay, and a check on the loss."""

from math import isfinite

import torch
from torch import nn

from convsmith.errors import ConvsmithError
from convsmith.train.records import USUAL, Recipe


def sgd(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """The optimizer of a recipe; raises ConvsmithError where nothing can be trained."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise ConvsmithError("The net has no parameters that can be trained; unfreeze some.")
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=recipe.lr or USUAL, momentum=recipe.momentum, nesterov=recipe.nesterov)


def check_finite(loss: float, epoch: int, rate: float) -> None:
    """Raise ConvsmithError where a loss is no number any more."""
    if not isfinite(loss):
        where = f"epoch {epoch + 1} at learning rate {rate:.3g}"
        raise ConvsmithError(f"The loss became {loss} in {where}; train with a lower lr, or with precision fp32.")
