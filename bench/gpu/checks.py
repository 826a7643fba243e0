"""Whether a device computes right, before anything is measured on it: against float64 on the CPU, on fresh draws."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convsmith.blocks import rolling_pointwise
from convsmith.kernels.rolling import dense
from loop import Lab

BOUNDS = {torch.float32: 3e-3, torch.bfloat16: 2e-2}  # relative; convolutions of float32 may be in tf32
WINDOWS = ((64, 64, 4, 0.5), (96, 64, 8, 0.33), (512, 512, 8, 0.5), (40, 24, 2, 0.75))  # in, out, groups, overlap
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def check(lab: Lab) -> dict[str, dict[str, Any]]:
    """By name of a check: whether it passed, its largest relative error, and where that was."""
    return {"convolution": judged(lab, convolutions()), "rolling": judged(lab, rollings())}


Case = tuple[str, Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor], Tensor, Tensor]


def convolutions() -> list[Case]:
    """A strided and a depthwise convolution with a norm behind."""

    def run(groups: int, x: Tensor, weight: Tensor) -> Tensor:
        return F.batch_norm(F.conv2d(x, weight, stride=2, padding=1, groups=groups), None, None, training=True)

    return [
        (f"{groups} groups", partial(run, groups), partial(run, groups), torch.randn(8, 32, 17, 17), weight)
        for groups, weight in ((1, torch.randn(48, 32, 3, 3)), (32, torch.randn(32, 1, 3, 3)))
    ]


def rollings() -> list[Case]:
    """The product's operator against the masked 1x1."""

    def own(groups: int, overlap: float, x: Tensor, weight: Tensor) -> Tensor:
        return rolling_pointwise(x, weight, None, groups, overlap, 1)

    def exact(groups: int, overlap: float, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, dense(weight, x.shape[1], groups, overlap))

    return [
        (f"{i} to {o}, g={g} o={v}", partial(own, g, v), partial(exact, g, v), torch.randn(3, i, 9, 11),
         torch.randn(o, i // g))
        for i, o, g, v in WINDOWS
    ]  # fmt: skip


def judged(lab: Lab, cases: list[Case]) -> dict[str, Any]:
    """Forward and both gradients of every case, in both number types and memory formats."""
    worst, where, passed = 0.0, "", True
    for (name, own, exact, x, weight), dtype, layout in product(cases, BOUNDS, FORMATS):
        error = apart(lab, own, exact, x.to(dtype), weight.to(dtype), FORMATS[layout])
        passed &= error < BOUNDS[dtype]  # NaN never passes
        if not error <= worst:
            worst, where = error, f"{name}, {dtype}, {layout}"
    return {"passed": passed, "error": worst, "where": where}


def apart(
    lab: Lab, own: Callable[..., Tensor], exact: Callable[..., Tensor], x: Tensor, weight: Tensor, layout: Any
) -> float:
    """The largest relative error of the result and both gradients."""
    wanted = answers(exact, x.double(), weight.double())
    found = answers(own, x.to(lab.device, memory_format=layout), weight.to(lab.device))
    errors = [(a.cpu().double() - b).norm() / b.norm() for a, b in zip(found, wanted, strict=True)]
    return float(torch.stack(errors).max())


def answers(run: Callable[..., Tensor], x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """The result, and the gradients of a weighted sum of it to x and weight."""
    x, weight = x.detach().requires_grad_(), nn.Parameter(weight.detach())
    y = run(x, weight)
    generator = torch.Generator().manual_seed(0)
    grad = torch.randn(y.shape, generator=generator).to(y)
    return y.detach(), *torch.autograd.grad(y, (x, weight), grad)
