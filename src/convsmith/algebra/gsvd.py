"""The best low rank per channel of what the channel answers: the singular value decomposition in the input's metric."""

import torch
from torch import Tensor

from convsmith.algebra.fitting import Target, fits
from convsmith.algebra.forms import DepthwiseFirst, Factors, Form, PointwiseFirst
from convsmith.algebra.linear import factorize, low_rank
from convsmith.algebra.svd import masked, svd_pointwise_first


@fits("gsvd", DepthwiseFirst)
def gsvd_depthwise_first(form: DepthwiseFirst, target: Target) -> Factors:
    """Per input channel c the filters and columns that lose least of its own response, other channels aside.

        min |X_c (W_c^T - D P^T)|:   L L^T = G_cc,   L^T W_c^T = U S V^T,   D = L^-T U_r,   P^T = S_r V_r^T

    This is the generalized SVD of W_c^T in the metrics G_cc and I. From He et al. (2019), as `svd`.
    """
    root = factorize(target.blocks)  # (c, k, k)
    kept = masked(target.weight, form.mask).permute(1, 2, 0)  # (c, k, n)
    left, right = low_rank(root.transpose(1, 2) @ kept, form.rank)  # (c, k, r) and (c, r, n)
    filters = torch.linalg.solve_triangular(root.transpose(1, 2), left, upper=True)
    # (c, k, r) -> (c, r, k) and (c, r, n) -> (n, c, r)
    return filters.transpose(1, 2), masked(right.permute(2, 0, 1), form.mask)


@fits("gsvd", PointwiseFirst)
def gsvd_pointwise_first(form: PointwiseFirst, target: Target) -> Factors:
    """Per output channel n the best rank r of W_n (C, K) in separate metrics of channels and taps, or `svd`'s.

        min |L_A^T (W_n - P D) L_B|:   G ~ A (x) B,   A = L_A L_A^T (C, C),   B = L_B L_B^T (K, K)

    The Gram matrix of all patches is no Kronecker product, so each output takes that fit of the two which loses less.
    """
    over_channels, over_taps = (factorize(factor) for factor in _kronecker(target.gram))
    left, right = low_rank(over_channels.T @ target.weight @ over_taps, form.rank)  # (n, c, r) and (n, r, k)
    maps = torch.linalg.solve_triangular(over_channels.T, left, upper=True).transpose(1, 2)
    fitted = maps, torch.linalg.solve_triangular(over_taps, right, upper=False, left=False)
    plain = svd_pointwise_first(form, target)
    better = _missed(form, fitted, target) < _missed(form, plain, target)
    pointwise, depthwise = (
        torch.where(better[:, None, None], ours, theirs) for ours, theirs in zip(fitted, plain, strict=True)
    )
    return pointwise, depthwise


def _kronecker(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Metrics of channels (C, C) and of taps (K, K) whose Kronecker product is near a Gram matrix (C, K, C, K)."""
    over_channels = torch.einsum("ckdk->cd", gram) / gram.shape[1]
    # every channel counts the same whatever its scale
    return over_channels, torch.einsum("ckcl,c->kl", gram, 1 / over_channels.diagonal()) / len(gram)


def _missed(form: Form, factors: Factors, target: Target) -> Tensor:
    """Per output the mean square of what is missed, up to a constant, (n,)."""
    made = form.compose(factors).flatten(1)
    return (made @ target.measured.gram * made - 2 * made * target.measured.cross.T).sum(1)
