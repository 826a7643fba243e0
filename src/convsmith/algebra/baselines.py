"""What depth-wise decomposition is measured against: fewer filters, filters in two parts, Tucker-2."""

import torch
from torch import Tensor

from convsmith.algebra.fitting import Target, fits
from convsmith.algebra.forms import Channel, Factors, Spatial, Tucker
from convsmith.algebra.linear import factorize, low_rank

SWEEPS = 5  # of the orthogonal iteration, which has all but converged by then


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


@fits("svd", Spatial)
def svd_spatial(form: Spatial, target: Target) -> Factors:
    """The best rank R of the weight as a matrix (C kh, N kw), in closed form.

    From Jaderberg et al., "Speeding up Convolutional Neural Networks with Low Rank Expansions" (BMVC 2014), in the
    form of Tai et al., "Convolutional Neural Networks with Low-rank Regularization" (ICLR 2016).
    """
    outputs, inputs, _ = target.weight.shape
    height, width = form.kernel
    # (n, c, kh, kw) -> (c, kh, n, kw) -> (c kh, n kw)
    matrix = target.weight.view(outputs, inputs, height, width).permute(1, 2, 0, 3).reshape(1, inputs * height, -1)
    left, right = low_rank(matrix, form.rank)
    vertical, horizontal = left[0].T.reshape(-1, inputs, height), right[0].view(-1, outputs, width)
    return vertical, horizontal.transpose(0, 1)


@fits("svd", Tucker)
def svd_tucker(form: Tucker, target: Target) -> Factors:
    """Orthonormal bases of input and output channels and the core between, by higher-order orthogonal iteration.

    From De Lathauwer et al., "On the best rank-1 and rank-(R1, .., RN) approximation of higher-order tensors" (2000).
    """
    weight = target.weight
    inputs = _basis(weight.transpose(0, 1), form.inputs)  # (c, r)
    for _ in range(SWEEPS):
        outputs = _basis(torch.einsum("nck,cr->nrk", weight, inputs), form.outputs)
        inputs = _basis(torch.einsum("nck,ns->csk", weight, outputs), form.inputs)
    return inputs.T, torch.einsum("nck,ns,cr->srk", weight, outputs, inputs), outputs


def _basis(weight: Tensor, rank: int) -> Tensor:
    """The first left singular vectors of a weight unfolded along its first dimension, (m, ..) -> (m, r)."""
    rows = weight.flatten(1)
    vectors: Tensor = torch.linalg.eigh(rows @ rows.T).eigenvectors
    return vectors[:, -rank:].flip(-1)
