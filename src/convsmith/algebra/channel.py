"""Fewer whole filters, and a pointwise kernel that mixes their answers: closed forms of low rank."""

import torch

from convsmith.algebra.fitting import Target, fits
from convsmith.algebra.forms import Channel, Factors
from convsmith.algebra.linear import factorize, low_rank


@fits("svd", Channel)
def svd_channel(form: Channel, target: Target) -> Factors:
    """The best rank R of the weight as a matrix (N, C K): R filters and how outputs mix them."""
    left, right = low_rank(target.weight.flatten(1)[None], form.rank)
    return right[0].view(-1, *target.weight.shape[1:]), left[0]


@fits("als", Channel)
@fits("gsvd", Channel)
def gsvd_channel(form: Channel, target: Target) -> Factors:
    """The best rank R of the responses, in closed form: reduced-rank regression of responses on patches.

        W' = U U^T B^T G^-1,   U: the first R eigenvectors of B^T G^-1 B

    From Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and Detection" (2015).
    """
    root = factorize(target.moments.gram)
    whitened = torch.linalg.solve_triangular(root, target.moments.cross, upper=False)  # L^-1 B (c k, n)
    left, right = low_rank(whitened[None], form.rank)  # (1, c k, r) and (1, r, n)
    filters = torch.linalg.solve_triangular(root.T, left[0], upper=True)
    return filters.T.reshape(-1, *target.weight.shape[1:]), right[0].T
