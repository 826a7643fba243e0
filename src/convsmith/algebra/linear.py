"""Linear algebra that the methods share: low rank, positive definite solves, conjugate gradients, all batched."""

from collections.abc import Callable

import torch
from torch import Tensor

# Added to a normal matrix, as a share of its mean diagonal: columns that say the same are then no division by zero.
_JITTER = 1e-12


def low_rank(matrices: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Best rank r of each matrix, (b, m, n) -> (b, m, r) and (b, r, n), one of them orthonormal.

    The eigenvectors of the smaller Gram matrix are ten times faster than a singular value decomposition of many flat
    matrices, and M is projected on them, so that at full rank the product is M whatever their rounding.

    >>> left, right = low_rank(torch.ones(1, 2, 3, dtype=torch.float64), 1)
    >>> (left @ right).round(decimals=9).tolist()
    [[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]]
    """
    if matrices.shape[1] < matrices.shape[2]:
        right, left = low_rank(matrices.transpose(1, 2), rank)
        return left.transpose(1, 2), right.transpose(1, 2)
    # eigenvalues rise: the last are the largest
    basis = torch.linalg.eigh(matrices.transpose(1, 2) @ matrices).eigenvectors[..., -rank:].flip(-1)
    return matrices @ basis, basis.transpose(1, 2)


def factorize(gram: Tensor) -> Tensor:
    """Cholesky factors L L^T of positive semidefinite matrices (.., n, n), of the identity where one is zero."""
    scale = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    jitter = torch.where(scale > 0, _JITTER * scale, 1.0)
    root: Tensor = torch.linalg.cholesky(gram + torch.diag_embed(jitter[..., None].expand(gram.shape[:-1])))
    return root


def improve(solution: Tensor, gram: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Least squares from where it stands: rows P (N, m) that minimize P gram P^T - 2 P target, (m, m) and (m, N).

    Solving for the change instead of for P keeps the objective from rising where the matrix is singular.
    mask: (N, m) bool, the entries that may differ from zero; rows of one mask are solved together.
    """
    residual = target - gram @ solution.T  # (m, n)
    if mask is None:
        return solution + torch.cholesky_solve(residual, factorize(gram)).T
    improved = solution.clone()
    patterns, which = torch.unique(mask, dim=0, return_inverse=True)
    for i, pattern in enumerate(patterns):
        rows, free = (which == i).nonzero()[:, 0], pattern.nonzero()[:, 0]
        if len(free):
            change = torch.cholesky_solve(residual[free][:, rows], factorize(gram[free][:, free]))
            improved[rows[:, None], free] += change.T
    return improved


def conjugate(
    times: Callable[[Tensor], Tensor], residual: Tensor, precondition: Callable[[Tensor], Tensor], steps: int
) -> Tensor:
    """Approximate solutions of A x = residual for a batch (b, ..), by preconditioned conjugate gradients from zero.

    times, precondition: multiply by A and by about its inverse, both positive (semi)definite, system by system.
    However few the steps, x^T A x - 2 x^T residual never rises.
    """
    x, direction = torch.zeros_like(residual), torch.zeros_like(residual)
    before = None
    for _ in range(steps):
        steepest = precondition(residual)
        slope = _dot(steepest, residual)
        direction = steepest + (direction * (slope / before).nan_to_num(0, 0, 0) if before is not None else 0)
        image = times(direction)
        curvature = _dot(direction, image)
        # A system that is solved, or has no curvature left, stays where it is.
        length = torch.where((curvature > 0) & (slope > 0), slope / curvature, 0.0)
        x = x + length * direction
        residual = residual - length * image
        before = slope
    return x


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Products of the systems of a batch, shaped to multiply them, (b, ..) -> (b, 1, ..)."""
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.dim() - 1))
