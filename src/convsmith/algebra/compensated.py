"""Channels fitted one after the other, each making up for what the others miss."""

import torch
from torch import Tensor

from convsmith.algebra.fitting import Target, fits
from convsmith.algebra.forms import DepthwiseFirst, Factors
from convsmith.algebra.gsvd import gsvd_depthwise_first
from convsmith.algebra.linear import factorize, low_rank
from convsmith.algebra.svd import masked

SWEEPS = 10  # after them a descent on all channels gains more per second


@fits("compensated", DepthwiseFirst)
def compensated_depthwise_first(form: DepthwiseFirst, target: Target) -> Factors:
    """From `gsvd` on, channel i is refitted to the residual of all others, over and over; no step raises the error.

        T_i = B_i - sum_{j != i} G_ij V_j,   L L^T = G_ii,   L^-1 T_i = U S V^T,   D_i = L^-T U_r,   P_i^T = S_r V_r^T

    B: patches against responses; V_j = D_j P_j^T. From He et al. (2019), as `svd`.
    """
    start = filters, pointwise = gsvd_depthwise_first(form, target)
    filters, columns = filters.clone(), pointwise.permute(1, 2, 0).contiguous()  # (c, r, k) and (c, r, n)
    made = filters.transpose(1, 2) @ columns  # V (c, k, n)
    cross, inverse = target.cross, torch.linalg.inv(factorize(target.blocks))
    reads = torch.ones_like(cross[:, 0]) if form.mask is None else form.mask.T.to(cross)  # (c, n)
    for _ in range(target.evaluations(SWEEPS)):
        # The residual of a few channels is computed in one product, and kept up to date among themselves.
        for first, strip in target.moments.strips():
            near = strip[:, :, first : first + len(strip)]  # (b, k, b, k)
            missed = cross[first : first + len(strip)] - _answered(strip, filters, columns)
            for i, channel in enumerate(range(first, first + len(strip))):
                rest = (missed[i] + near[i, :, i] @ made[channel]) * reads[channel]  # T (k, n)
                left, columns[channel] = (part[0] for part in low_rank((inverse[channel] @ rest)[None], form.rank))
                filters[channel] = left.T @ inverse[channel]
                change = filters[channel].T @ columns[channel] - made[channel]
                made[channel] += change
                missed -= near[:, :, i] @ change
    # (c, r, n) -> (n, c, r)
    return target.best(form, (filters, masked(columns.permute(2, 0, 1), form.mask)), start)


def _answered(strip: Tensor, filters: Tensor, columns: Tensor) -> Tensor:
    """What all channels answer to some, sum_j G_ij V_j (b, k, n), the filters first: K / r times less to multiply."""
    seen = torch.einsum("bkcl,crl->bkcr", strip, filters).flatten(2)  # (b, k, c r)
    return seen @ columns.flatten(0, 1)
