"""Depth-wise decomposition from the weights alone: the best low rank per channel, by SVD."""

import torch
from torch import Tensor

from convsmith.algebra.separable import METHODS, Method, Separable, relative_error
from convsmith.errors import ConvsmithError


def svd_input_wise(weight: Tensor, rank: int, mask: Tensor | None = None) -> Separable:
    """Fit a depthwise-then-pointwise form: per input channel c the best rank r of W_c (N, K).

        W_c = U S V^T,   pointwise_c = U_r S_r^(1/2),   depthwise_c = S_r^(1/2) V_r^T

    weight: (N, C, K), K = kernel height x width, any float type; computed in float64, answered in the weight's type.
    rank: 1 to min(K, N), where the fit is exact.
    mask: (N, C) bool, the (output, input) pairs that the pointwise connects; None for all. The rest of the weight is
    lost, and counted in the error, which is against the full weight.
    Raises ConvsmithError on NaN or infinity in the weight, ValueError on a rank out of range.
    From He et al., "Depth-wise Decomposition for Accelerating Separable Convolutions in Efficient CNNs" (2019).

    >>> weight = torch.randn(8, 4, 9, generator=torch.Generator().manual_seed(0))
    >>> [round(svd_input_wise(weight, rank).error, 2) for rank in (1, 4, 8)]
    [0.8, 0.33, 0.0]
    """
    kept = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask[..., None].expand_as(weight)
    # (n, c, k) -> (c, n, k) -> (c, n, r) and (c, r, k)
    left, right = _low_rank((weight.detach() * kept).transpose(0, 1), rank)
    # Rows that the mask leaves out are zero up to rounding; the second product makes them exactly so.
    pointwise = (left.transpose(0, 1) * kept[..., :1]).to(weight.dtype)
    depthwise = right.to(weight.dtype)
    fitted = torch.einsum("ncr,crk->nck", pointwise.double(), depthwise.double())
    return Separable(depthwise, pointwise, relative_error(weight.detach(), fitted))


def svd_output_wise(weight: Tensor, rank: int) -> Separable:
    """Fit a pointwise-then-depthwise form: per output channel n the best rank r of W_n (C, K).

    weight: (N, C, K); rank: 1 to min(K, C), where the fit is exact.
    Raises as `svd_input_wise` does.

    >>> svd_output_wise(torch.ones(8, 4, 9), 1).depthwise.shape
    torch.Size([8, 1, 9])
    """
    # Outputs and inputs change places: what is per input channel of (c, n, k) is per output channel of (n, c, k).
    swapped = svd_input_wise(weight.transpose(0, 1), rank)
    return Separable(swapped.depthwise, swapped.pointwise.transpose(0, 1), swapped.error)


def _low_rank(matrices: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Best rank r of each matrix, (b, m, n) -> (b, m, r) and (b, r, n) in float64, the scale split evenly."""
    if not 1 <= rank <= min(matrices.shape[1:]):
        raise ValueError(f"rank {rank} is outside 1 to {min(matrices.shape[1:])}")
    if not matrices.isfinite().all():
        raise ConvsmithError("The weight to decompose holds NaN or infinity; load a sound checkpoint.")
    left, scale, right = torch.linalg.svd(matrices.double(), full_matrices=False)
    root = scale[:, :rank].sqrt()
    return left[..., :rank] * root[:, None, :], root[..., None] * right[:, :rank]


METHODS.add("svd", Method(svd_input_wise, svd_output_wise))
