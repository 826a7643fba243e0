"""Filters in two parts, kh x 1 and 1 x kw: the best of the weight, and of the responses by variable projection."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from convsmith.algebra.descent import Point, descend
from convsmith.algebra.fitting import Target, fits
from convsmith.algebra.forms import Factors, Spatial
from convsmith.algebra.linear import factorize, low_rank

EVALUATIONS = 100
# What the energies of terms weigh, as a share of the responses': little, so that terms do not cancel.
RIDGE = 1e-4


@fits("svd", Spatial)
def svd_spatial(form: Spatial, target: Target) -> Factors:
    """The best rank R of the weight as a matrix (C kh, N kw), in closed form.

    From Jaderberg et al., "Speeding up Convolutional Neural Networks with Low Rank Expansions" (BMVC 2014). The form is
    that of Tai et al., "Convolutional Neural Networks with Low-rank Regularization" (ICLR 2016).
    """
    left, right = low_rank(_matrix(form, target)[None], form.rank)
    return _factors(form, target, left[0], right[0])


@fits("gsvd", Spatial)
def gsvd_spatial(form: Spatial, target: Target) -> Factors:
    """The same in the metric of columns of patches, each column taken for uncorrelated with the others.

        min |L^T (M - V H)|:   L L^T = mean_j G_jj (C kh, C kh),   L^T M = U S Z^T,   V = L^-T U_r,   H = S_r Z_r^T

    G_jj: moments of the patches' j-th columns.
    """
    inputs, (height, width) = target.weight.shape[1], form.kernel
    gram = target.gram.view(inputs, height, width, inputs, height, width)
    columns = gram.diagonal(dim1=2, dim2=5).mean(-1).reshape(inputs * height, inputs * height)
    root = factorize(columns)
    left, right = low_rank((root.T @ _matrix(form, target))[None], form.rank)
    factors = _factors(form, target, torch.linalg.solve_triangular(root.T, left[0], upper=True), right[0])
    return target.best(form, factors, svd_spatial(form, target))


@fits("als", Spatial)
def als_spatial(form: Spatial, target: Target) -> Factors:
    """From `gsvd` on, the least-squares horizontal H of vertical V, and descent on what is left over V.

        F_rj = V_r (x) e_j,   H^T = (F G F^T + t D)^-1 F B,   gradient of F = 2 H^T (H F G - B^T)

    G, B: moments of the patches, and of patches with responses; t D bounds the terms (Phan et al., ECCV 2020).
    """
    start = vertical, _ = gsvd_spatial(form, target)
    objective = _Objective.of(form, target)
    units = target.deviations[:, None]
    (kernels,) = descend((vertical * units,), objective.measure, target.evaluations(EVALUATIONS))
    horizontal, _, _ = objective.solve(kernels)
    made = horizontal.view(-1, form.kernel[1], form.rank).transpose(1, 2)
    return target.best(form, (kernels / units, made), start)


@dataclass(frozen=True)
class _Objective:
    """The share of the responses' energy that is missed, and a little of that of the terms."""

    gram: Tensor  # (kw, c kh, c kh kw): the rows of each column of patches
    cross: Tensor  # (kw, c kh, n)
    energy: Tensor
    units: Tensor  # (c, 1)

    @classmethod
    def of(cls, form: Spatial, target: Target) -> Self:
        """That of a target with data."""
        inputs, (height, width) = target.weight.shape[1], form.kernel
        rows = target.gram.reshape(inputs * height, width, -1).transpose(0, 1).contiguous()
        cross = target.cross.reshape(inputs * height, width, -1).transpose(0, 1).contiguous()
        return cls(rows, cross, target.energy, target.deviations[:, None])

    def solve(self, vertical: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The horizontal (n, kw r), and the features' moments with the patches and with the responses."""
        filters = (vertical / self.units).flatten(1)  # (r, c kh)
        rank, width = len(filters), len(self.gram)
        seen = filters @ self.gram  # (kw, r, c kh kw)
        # (kw, r, c kh, kw') x (r', c kh) -> (kw, r, kw', r')
        gram = torch.einsum("jrai,qa->jriq", seen.view(width, rank, -1, width), filters).reshape(rank * width, -1)
        answers = (filters @ self.cross).flatten(0, 1)  # (kw r, n)
        ridge = torch.diag(RIDGE * vertical.square().sum((1, 2)).repeat(width))
        return torch.cholesky_solve(answers, factorize((gram + gram.T) / 2 + ridge)).T, seen, answers

    def measure(self, at: Point) -> tuple[Tensor, Point]:
        """The objective where the horizontal is solved for, and its gradient by the vertical."""
        (vertical,) = at
        mix, seen, answers = self.solve(vertical)
        rank, width = len(vertical), len(self.gram)
        # of the features of column j only the taps of column j are free
        made = (mix.T @ mix @ seen.flatten(0, 1)).view(width, rank, -1, width).diagonal(dim1=0, dim2=3)  # (r, c kh, kw)
        wanted = mix.T.view(width, rank, -1) @ self.cross.transpose(1, 2)  # (kw, r, c kh)
        gradient = (made.sum(-1) - wanted.sum(0)).view_as(vertical) / self.units
        held = mix.square().sum(0).view(width, rank).sum(0)[:, None, None] * vertical
        return 1 - (answers * mix.T).sum() / self.energy, (2 / self.energy * (gradient + RIDGE * held),)


def _matrix(form: Spatial, target: Target) -> Tensor:
    """The weight (n, c, kh kw) -> (c, kh, n, kw) -> (c kh, n kw)."""
    outputs, inputs, _ = target.weight.shape
    height, width = form.kernel
    apart = target.weight.view(outputs, inputs, height, width)
    return apart.permute(1, 2, 0, 3).reshape(inputs * height, outputs * width)


def _factors(form: Spatial, target: Target, left: Tensor, right: Tensor) -> Factors:
    """The factors of a product (c kh, r) (r, n kw)."""
    outputs, inputs, _ = target.weight.shape
    height, width = form.kernel
    return left.T.reshape(-1, inputs, height), right.view(-1, outputs, width).transpose(0, 1)
