"""The separable form with every factor free at once: least squares for the pointwise, descent for the filters."""

import torch
from torch import Tensor
from torch.nn import functional as F

from convsmith.algebra.compensated import compensated_depthwise_first
from convsmith.algebra.descent import Point, descend
from convsmith.algebra.fitting import Target, fits
from convsmith.algebra.forms import DepthwiseFirst, Factors, PointwiseFirst
from convsmith.algebra.gsvd import gsvd_pointwise_first
from convsmith.algebra.linear import factorize, improve

EVALUATIONS = 60


@fits("als", DepthwiseFirst)
def als_depthwise_first(form: DepthwiseFirst, target: Target) -> Factors:
    """From `compensated` on, the least-squares pointwise P of filters d, and descent on what is left over d.

        P^T = (Z^T Z)^-1 Z^T Y,   (Z^T Z)_ij = d_i^T G_ij d_j,   gradient_i = 2 ((sum_j G_ij d_j P_j^T) - B_i) P_i

    Z: what the filters answer; G, B: moments of the patches, and of patches with responses. Never worse than its start.
    """
    start = filters, pointwise = compensated_depthwise_first(form, target)
    channels, rank, _ = filters.shape
    mask = None if form.mask is None else form.mask.repeat_interleave(rank, 1)

    def see(filters: Tensor) -> Tensor:
        """Their moments with every patch, (c r, c, k)."""
        return target.moments.through(filters).flatten(0, 1)

    def mix(filters: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """The pointwise (n, c r), and Z^T Y (c r, n)."""
        # (c, c' r', k) @ (c, k, r) -> (c, c' r', r) -> (c r, c' r')
        gram = (seen.transpose(0, 1) @ filters.transpose(1, 2)).transpose(1, 2).flatten(0, 1)
        answers = (filters @ target.cross).flatten(0, 1)
        return improve(torch.zeros_like(answers.T), (gram + gram.T) / 2, answers, mask), answers

    def measure(at: Point) -> tuple[Tensor, Point]:
        seen = see(at[0])
        weight, answers = mix(at[0], seen)
        # (c, r, c' r') @ (c, c' r', k) -> (c, r, k), and (c, k, n) @ (c, n, r) -> (c, k, r)
        made = (weight.T @ weight).view(channels, rank, -1) @ seen.transpose(0, 1)
        wanted = target.cross @ weight.T.view(channels, rank, -1).transpose(1, 2)
        return 1 - (answers * weight.T).sum() / target.energy, (2 / target.energy * (made - wanted.transpose(1, 2)),)

    (directions,) = descend((F.normalize(filters, dim=2),), measure, target.evaluations(EVALUATIONS))
    return target.best(form, (directions, mix(directions, see(directions))[0].view_as(pointwise)), start)


@fits("als", PointwiseFirst)
def als_pointwise_first(form: PointwiseFirst, target: Target) -> Factors:
    """From `gsvd` on, the least-squares filters D_n of maps P_n, and descent on what is left over P; output by output.

    D_n = H_n^-1 P_n^T B_n,   (H_n)_kl = P_n^T G_kl P_n,   gradient_n = 2 (G V_n - B_n) D_n^T,   V_n = P_n D_n
    """
    start = pointwise, depthwise = gsvd_pointwise_first(form, target)
    outputs, rank, taps = depthwise.shape
    units, channels = target.deviations, len(target.gram)
    cross = target.cross.permute(2, 0, 1)  # (n, c, k)

    def filters(maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """D (n, r k), the maps' moments with the patches (n, r k, c k) and with the responses (n, r k)."""
        # (n r, c) @ (c, k c k) -> (n r, k c k): a map at every tap against every patch
        seen = (maps.flatten(0, 1) @ target.gram.flatten(1)).view(outputs, rank * taps, -1)
        # (n, 1, r', c) @ (n, r k, c, k') -> (n, r k, r', k') -> (n, r k, r' k')
        gram = (maps[:, None] @ seen.view(outputs, rank * taps, channels, taps)).flatten(2)
        answers = (maps @ cross).flatten(1)
        root = factorize((gram + gram.transpose(1, 2)) / 2)
        return torch.cholesky_solve(answers[..., None], root)[..., 0], seen, answers

    def measure(at: Point) -> tuple[Tensor, Point]:
        directions, seen, answers = filters(at[0] / units)
        missed = (directions[:, None] @ seen).view_as(cross) - cross  # V G - B
        gradient = directions.view(outputs, rank, taps) @ missed.transpose(1, 2)  # (n, r, c)
        return 1 - (answers * directions).sum() / target.energy, (2 / target.energy * gradient / units,)

    (directions,) = descend((F.normalize(pointwise * units, dim=2),), measure, target.evaluations(EVALUATIONS))
    return target.best(form, (directions / units, filters(directions / units)[0].view_as(depthwise)), start)
