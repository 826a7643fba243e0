"""The best low rank per channel of what the channel answers: the singular value decomposition in the input's metric."""

import torch

from convsmith.algebra.fit import Target, fits
from convsmith.algebra.forms import DepthwiseFirst, Factors
from convsmith.algebra.linear import factorize, low_rank
from convsmith.algebra.svd import masked


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
