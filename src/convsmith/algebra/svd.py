"""Depth-wise decomposition from the weights alone: the best low rank per channel."""

from torch import Tensor

from convsmith.algebra.fitting import Target, fits
from convsmith.algebra.forms import DepthwiseFirst, Factors, PointwiseFirst
from convsmith.algebra.linear import low_rank


@fits("svd", DepthwiseFirst)
def svd_depthwise_first(form: DepthwiseFirst, target: Target) -> Factors:
    """Per input channel c the best rank r of W_c (N, K), its masked rows left out.

        W_c = U S V^T,   pointwise_c = U_r S_r,   depthwise_c = V_r^T

    From He et al., "Depth-wise Decomposition for Accelerating Separable Convolutions in Efficient CNNs" (2019).
    """
    # (n, c, k) -> (c, n, k) -> (c, n, r) and (c, r, k)
    left, right = low_rank(masked(target.weight, form.mask).transpose(0, 1), form.rank)
    # Rows that the mask leaves out are zero up to rounding; the second product makes them exactly so.
    return right, masked(left.transpose(0, 1), form.mask)


@fits("svd", PointwiseFirst)
def svd_pointwise_first(form: PointwiseFirst, target: Target) -> Factors:
    """Per output channel n the best rank r of W_n (C, K)."""
    left, right = low_rank(target.weight, form.rank)
    return left.transpose(1, 2), right  # (n, c, r) -> (n, r, c)


def masked(weight: Tensor, mask: Tensor | None) -> Tensor:
    """A weight (N, C, ..) with zeros where the mask (N, C) connects nothing."""
    return weight if mask is None else weight * mask.to(weight)[..., None]
