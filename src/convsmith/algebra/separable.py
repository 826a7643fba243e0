"""The separable form of a convolution's weight, its error, and the table of methods that fit it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from convsmith.registry import Registry


@dataclass(frozen=True)
class Separable:
    """A depthwise and a pointwise factor of a weight W (N, C, K), with the error they attain.

    Input-wise (depthwise first):   W'[n, c, k] = sum_r pointwise[n, c, r] depthwise[c, r, k]
    Output-wise (pointwise first):  W'[n, c, k] = sum_r pointwise[n, c, r] depthwise[n, r, k]

    depthwise: (C, r, K) input-wise, (N, r, K) output-wise; pointwise: (N, C, r); error: ||W - W'|| / ||W||.
    """

    depthwise: Tensor
    pointwise: Tensor
    error: float


@dataclass(frozen=True)
class Method:
    """One way to fit both separable forms.

    input_wise: of a weight (N, C, K), a rank r and, where the pointwise is sparse, the mask (N, C) of the pairs it has.
    output_wise: of a weight (N, C, K) and a rank r.
    """

    input_wise: Callable[[Tensor, int, Tensor | None], Separable]
    output_wise: Callable[[Tensor, int], Separable]


METHODS = Registry[Method]("decomposition method")


def relative_error(weight: Tensor, fitted: Tensor) -> float:
    """||W - W'|| / ||W|| in the Frobenius norm, both of one shape; 0 for a weight of zeros fitted by zeros.

    >>> import torch
    >>> relative_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0]))
    0.8
    """
    missed = (weight.double() - fitted.double()).norm().item()
    return missed / weight.double().norm().item() if missed else 0.0
