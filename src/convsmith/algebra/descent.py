"""Smooth descent on factors whose last one is solved for exactly: variable projection by L-BFGS."""

from collections.abc import Callable

import torch
from torch import Tensor

Point = tuple[Tensor, ...]

HISTORY = 10
# The least that a step must take off the objective, as a share of the responses' energy.
_LEAST = 1e-8


def descend(start: Point, measure: Callable[[Point], tuple[Tensor, Point]], evaluations: int) -> Point:
    """Factors of the lowest objective met, never one above that of the start.

    measure: the objective, as a share of the energy, and its gradient by each factor. With the linear factor
    eliminated there (Golub and Pereyra, "The differentiation of pseudo-inverses and nonlinear least squares problems
    whose variables separate", 1973) an evaluation takes one product with the Gram matrix. A sweep of alternating least
    squares takes one for each factor, and creeps along valleys that this crosses.

    >>> (found,) = descend((torch.tensor([3.0]),), lambda at: ((at[0] - 1).square().sum(), (2 * (at[0] - 1),)), 9)
    >>> found.item()
    1.0
    """
    at = [factor.clone(memory_format=torch.contiguous_format).requires_grad_() for factor in start]
    best, lowest = start, torch.inf
    search = torch.optim.LBFGS(
        at, max_iter=evaluations, max_eval=evaluations, history_size=HISTORY, line_search_fn="strong_wolfe",
        tolerance_grad=0.0, tolerance_change=_LEAST,
    )  # fmt: skip

    def closure() -> float:
        nonlocal best, lowest
        here = tuple(factor.detach() for factor in at)
        objective, gradients = measure(here)
        for factor, gradient in zip(at, gradients, strict=True):
            factor.grad = gradient.contiguous()
        if objective.item() < lowest:
            best, lowest = tuple(factor.clone() for factor in here), objective.item()
        return objective.item()

    search.step(closure)  # type: ignore[no-untyped-call]
    return best
