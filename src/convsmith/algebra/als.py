"""The separable forms by alternating least squares: all pointwise weights at once, then all filters at once."""

import torch
from torch import Tensor

from convsmith.algebra.compensated import compensated_depthwise_first
from convsmith.algebra.fit import Target, fits
from convsmith.algebra.forms import DepthwiseFirst, Factors
from convsmith.algebra.linear import conjugate, factorize, improve

SWEEPS = 30
# Steps of conjugate gradients on the filters per sweep. Their C r K equations need not be solved while the pointwise
# still changes, and at 512 channels a factorization of 4,608 unknowns takes longer than all these steps.
STEPS = 8


@fits("als", DepthwiseFirst)
def als_depthwise_first(form: DepthwiseFirst, target: Target) -> Factors:
    """From `compensated` on, alternating refits of pointwise and filters; no step raises the error.

        P^T = (Z^T Z)^-1 Z^T Y,  (Z^T Z)_ij = d_i^T G_ij d_j;   then d solves  sum_j (P^T P)_ij G_ij d_j = (B P)_i

    Z: what the filters d answer; G, B: moments of the patches, and of patches with responses.
    """
    filters, pointwise = compensated_depthwise_first(form, target)
    mask = None if form.mask is None else form.mask.repeat_interleave(form.rank, 1)
    mix = pointwise.flatten(1)  # (n, c r)
    for _ in range(SWEEPS):
        mix = _refit_pointwise(filters, mix, target, mask)
        filters = _refit_filters(filters, mix, target)
    mix = _refit_pointwise(filters, mix, target, mask)
    return filters, mix.view_as(pointwise)


def _refit_pointwise(filters: Tensor, mix: Tensor, target: Target, mask: Tensor | None) -> Tensor:
    seen = _through_gram(filters, target)  # (c r, c, k)
    # Z^T Z and Z^T Y: (c, c' r', k) @ (c, k, r) -> (c, c' r', r) -> (c r, c' r'), and (c, r, n) -> (c r, n)
    gram = (seen.transpose(0, 1) @ filters.transpose(1, 2)).transpose(1, 2).flatten(0, 1)
    return improve(mix, (gram + gram.T) / 2, (filters @ target.cross).flatten(0, 1), mask)


def _refit_filters(filters: Tensor, mix: Tensor, target: Target) -> Tensor:
    """Conjugate gradients over all filters, preconditioned by the equations of each channel alone."""
    channels, rank, _ = filters.shape
    weight = mix.T @ mix  # P^T P (c r, c r)
    rows = weight.view(channels, rank, -1)
    own = factorize(rows.view(channels, rank, channels, rank).diagonal(dim1=0, dim2=2).permute(2, 0, 1))
    taps = factorize(target.blocks)

    def times(x: Tensor) -> Tensor:
        # (c, r, c' r') @ (c, c' r', k) -> (c, r, k)
        return (rows @ _through_gram(x[0], target).transpose(0, 1))[None]

    def precondition(x: Tensor) -> Tensor:
        return torch.cholesky_solve(torch.cholesky_solve(x[0], own).transpose(1, 2), taps).transpose(1, 2)[None]

    wanted = (target.cross @ mix.T.view(channels, rank, -1).transpose(1, 2)).transpose(1, 2)  # (c, r, k)
    return filters + conjugate(times, wanted[None] - times(filters[None]), precondition, STEPS)[0]


def _through_gram(filters: Tensor, target: Target) -> Tensor:
    """Each filter's moments with every patch, (c, r, k) -> (c r, c, k)."""
    # gram is symmetric: (c, k, c' k') is its own rows of blocks, with nothing copied
    return (filters @ target.gram.flatten(2)).flatten(0, 1).view(-1, *target.weight.shape[1:])
