"""Channels fitted one after the other, each making up for what the others miss."""

import torch

from convsmith.algebra.fitting import Target, fits
from convsmith.algebra.forms import DepthwiseFirst, Factors
from convsmith.algebra.gsvd import gsvd_depthwise_first
from convsmith.algebra.linear import factorize, low_rank
from convsmith.algebra.svd import masked

SWEEPS = 10  # after them an alternating fit gains more per second


@fits("compensated", DepthwiseFirst)
def compensated_depthwise_first(form: DepthwiseFirst, target: Target) -> Factors:
    """From `gsvd` on, channel i is refitted to the residual of all others, over and over; no step raises the error.

        T_i = B_i - sum_{j != i} G_ij V_j,   L L^T = G_ii,   L^-1 T_i = U S V^T,   D_i = L^-T U_r,   P_i^T = S_r V_r^T

    B: patches against responses; V_j = D_j P_j^T. From He et al. (2019), as `svd`.
    """
    start = filters, pointwise = gsvd_depthwise_first(form, target)
    filters, columns = filters.clone(), pointwise.permute(1, 2, 0).contiguous()  # (c, r, k) and (c, r, n)
    made = filters.transpose(1, 2) @ columns  # V (c, k, n)
    gram, cross, inverse = target.gram, target.cross, torch.linalg.inv(factorize(target.blocks))
    reads = torch.ones_like(cross[:, 0]) if form.mask is None else form.mask.T.to(cross)  # (c, n)
    for _ in range(SWEEPS):
        for i in range(len(made)):
            # One row of blocks times all channels, anew: half the memory traffic of keeping a residual up to date.
            others = gram[i].flatten(1) @ made.flatten(0, 1) - gram[i, :, i] @ made[i]
            rest = (cross[i] - others) * reads[i]  # T (k, n)
            left, columns[i] = (part[0] for part in low_rank((inverse[i] @ rest)[None], form.rank))
            filters[i] = left.T @ inverse[i]
            made[i] = filters[i].T @ columns[i]
    # (c, r, n) -> (n, c, r)
    return target.best(form, (filters, masked(columns.permute(2, 0, 1), form.mask)), start)
