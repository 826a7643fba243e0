"""BatchNorm over the images of all processes, on CPUs as well, where torch's own needs GPUs."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def synced_norms(model: nn.Module) -> Iterator[None]:
    """Have every BatchNorm of a model take its statistics, while it trains, over the batches of all processes."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.forward = partial(_normalize, norm)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _normalize(norm: _BatchNorm, x: Tensor) -> Tensor:
    """What the norm answers to (n, c, ..), its mean and variance those of all processes' images."""
    if not norm.training:
        return type(norm).forward(norm, x)
    axes = [axis for axis in range(x.ndim) if axis != 1]
    shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
    wide = x.float()
    size = torch.tensor(float(x.numel() // x.shape[1]), device=x.device)
    distributed.all_reduce(size)
    mean = _total(wide.sum(axes)) / size
    apart = wide - mean.view(shape)
    variance = _total(apart.square().sum(axes)) / size
    _update(norm, mean.detach(), variance.detach() * size / (size - 1))
    out: Tensor = apart * torch.rsqrt(variance + norm.eps).view(shape)
    if norm.affine:
        out = out * norm.weight.view(shape) + norm.bias.view(shape)
    return out.to(x.dtype)


class _Total(torch.autograd.Function):
    """The sum of a tensor over all processes; what each gains from it is summed alike."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor) -> Tensor:
        """The sum."""
        total = mine.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """The sum of all processes' gradients."""
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


def _total(mine: Tensor) -> Tensor:
    total: Tensor = _Total.apply(mine)
    return total


def _update(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Carry the running statistics on, as torch does."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked += 1
    part = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), part)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), part)
