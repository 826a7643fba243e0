"""The forms that rolling pointwise convolution can take in PyTorch, for the benchmarks on CPUs and GPUs."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from convsmith.blocks import rolling_pointwise
from convsmith.kernels.rolling import Rolling, dense, windows

Run = Callable[[], object]
Form = Callable[[Tensor, Tensor], Tensor]  # images, weight (o, cg) or (o, c) -> images
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def forms(at: Rolling) -> dict[str, Form]:
    """By name, rolling pointwise first; `grouped` and `pointwise` compute something else of equal width."""
    found: dict[str, Form] = {
        "rolling": lambda x, w: rolling_pointwise(x, w, None, at.groups, at.overlap, 1),
        "grouped": lambda x, w: F.conv2d(x, w[..., None, None], groups=at.groups),
        "masked": lambda x, w: F.conv2d(x, dense(w, at.in_channels, at.groups, at.overlap)),
        "gathered": partial(gathered, at),
        "pointwise": lambda x, w: F.conv2d(x, w[..., None, None]),
    }
    if at.out_channels % at.distinct == 0:
        found["stacked"] = partial(stacked, at)
    return found


def gathered(at: Rolling, x: Tensor, weight: Tensor) -> Tensor:
    """Every output's window copied, then a convolution with a group for each output."""
    reads = windows(at.in_channels, at.out_channels, at.groups, at.overlap, x.device)
    return F.conv2d(x[:, reads.flatten()], weight[..., None, None], groups=at.out_channels)


def stacked(at: Rolling, x: Tensor, weight: Tensor) -> Tensor:
    """Every distinct window copied, a convolution with a group for each, and its outputs put in order."""
    starts = [j * at.step % at.in_channels for j in range(at.distinct)]
    doubled = torch.cat([x, x[:, : at.width]], 1)
    stack = torch.cat([doubled[:, start : start + at.width] for start in starts], 1)
    # (m n, cg) -> (n m, cg, 1, 1): the rows of one window side by side
    rows = weight.view(-1, at.distinct, at.width).transpose(0, 1).reshape(-1, at.width, 1, 1)
    y = F.conv2d(stack, rows, groups=at.distinct)
    return y.unflatten(1, (at.distinct, -1)).transpose(1, 2).flatten(1, 2)


def subject(form: Form, x: Tensor, weight: Tensor, backward: bool) -> Run:
    """A run of a form: forward in inference, or forward and both gradients."""
    if not backward:
        return torch.inference_mode()(partial(form, x, weight))
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    grad = torch.randn_like(form(x, weight))
    return lambda: torch.autograd.grad(form(x, weight), (x, weight), grad)


def subjects(at: Rolling, x: Tensor, names: Mapping[str, Form], backward: bool) -> dict[str, Run]:
    """Runs of the named forms on one input; all forms of rolling pointwise share a weight and are checked to agree."""
    draw = partial(torch.randn, dtype=x.dtype, device=x.device)
    narrow, wide = draw(at.out_channels, at.width), draw(at.out_channels, at.in_channels)
    for name in names.keys() - {"rolling", "grouped", "pointwise"}:
        error = (names[name](x, narrow) - names["rolling"](x, narrow)).norm() / names["rolling"](x, narrow).norm()
        assert error < 1e-2, (name, at, error)
    return {name: subject(form, x, wide if name == "pointwise" else narrow, backward) for name, form in names.items()}
