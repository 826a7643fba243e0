"""Linear algebra that the methods share: low rank, positive definite solves, least squares."""

from collections.abc import Iterator

import torch
from torch import Tensor

# Added to a normal matrix, as a share of its mean diagonal: columns that say the same are then no division by zero. The
# second is more than what products of float32 take off the least eigenvalue.
_JITTER, _MORE = 1e-12, 1e-5


def low_rank(matrices: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Best rank r of each matrix, (b, m, n) -> (b, m, r) and (b, r, n), one of them orthonormal.

    The eigenvectors of the smaller Gram matrix are ten times faster than a singular value decomposition of many flat
    matrices. M is projected on them, so that at full rank the product is M whatever their rounding. Raises ValueError
    on a rank outside 1 to min(m, n).

    >>> left, right = low_rank(torch.ones(1, 2, 3, dtype=torch.float64), 1)
    >>> (left @ right).round(decimals=9).tolist()
    [[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]]
    """
    if not 1 <= rank <= min(matrices.shape[1:]):
        raise ValueError(f"rank {rank} is outside 1 to {min(matrices.shape[1:])}")
    if matrices.shape[1] < matrices.shape[2]:
        right, left = low_rank(matrices.transpose(1, 2), rank)
        return left.transpose(1, 2), right.transpose(1, 2)
    matrices = matrices.contiguous()  # products of strided ones are four times slower
    # eigenvalues rise: the last are the largest
    basis = torch.linalg.eigh(matrices.transpose(1, 2) @ matrices).eigenvectors[..., -rank:].flip(-1)
    return matrices @ basis, basis.transpose(1, 2)


def factorize(gram: Tensor) -> Tensor:
    """Cholesky factors L L^T of positive semidefinite matrices (.., n, n), of the identity where one is zero.

    Rounding may have left one a little less than that; all then get a little more on their diagonals.
    """
    scale = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    shifted = gram.clone()
    shifted.diagonal(dim1=-2, dim2=-1).add_(torch.where(scale > 0, _JITTER * scale, 1.0)[..., None])
    root: Tensor
    root, failed = torch.linalg.cholesky_ex(shifted)
    if failed.any():
        shifted.diagonal(dim1=-2, dim2=-1).add_(_MORE * scale[..., None])
        root = torch.linalg.cholesky(shifted)
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
    for rows, free in alike(mask):
        if len(free):
            change = torch.cholesky_solve(residual[free][:, rows], factorize(gram[free][:, free]))
            improved[rows[:, None], free] += change.T
    return improved


def alike(mask: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows of a mask (N, m) that are the same, and where they are true.

    >>> [(rows.tolist(), free.tolist()) for rows, free in alike(torch.tensor([[True, False], [True, False]]))]
    [([0, 1], [0])]
    """
    patterns, which = torch.unique(mask, dim=0, return_inverse=True)
    for i, pattern in enumerate(patterns):
        yield (which == i).nonzero()[:, 0], pattern.nonzero()[:, 0]
