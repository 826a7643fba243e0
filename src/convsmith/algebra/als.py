"""The separable form with every factor free at once: least squares for the pointwise, descent for the filters."""

import torch
from torch import Tensor
from torch.nn import functional as F

from convsmith.algebra.compensated import compensated_depthwise_first
from convsmith.algebra.descent import Point, descend
from convsmith.algebra.fit import Target, fits
from convsmith.algebra.forms import DepthwiseFirst, Factors
from convsmith.algebra.linear import improve

EVALUATIONS = 60


@fits("als", DepthwiseFirst)
def als_depthwise_first(form: DepthwiseFirst, target: Target) -> Factors:
    """From `compensated` on, the least-squares pointwise P of filters d, and descent on what is left over d.

        P^T = (Z^T Z)^-1 Z^T Y,   (Z^T Z)_ij = d_i^T G_ij d_j,   gradient_i = 2 ((sum_j G_ij d_j P_j^T) - B_i) P_i

    Z: what the filters answer; G, B: moments of the patches, and of patches with responses. Never worse than its start.
    """
    filters, pointwise = compensated_depthwise_first(form, target)
    energy = target.moments.energy.sum()
    channels, rank, _ = filters.shape
    mask = None if form.mask is None else form.mask.repeat_interleave(rank, 1)

    def mix(filters: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """The pointwise (n, c r), and Z^T Y (c r, n)."""
        # (c, c' r', k) @ (c, k, r) -> (c, c' r', r) -> (c r, c' r')
        gram = (seen.transpose(0, 1) @ filters.transpose(1, 2)).transpose(1, 2).flatten(0, 1)
        answers = (filters @ target.cross).flatten(0, 1)
        return improve(torch.zeros_like(answers.T), (gram + gram.T) / 2, answers, mask), answers

    def measure(at: Point) -> tuple[Tensor, Point]:
        seen = _through_gram(at[0], target)
        weight, answers = mix(at[0], seen)
        # (c, r, c' r') @ (c, c' r', k) -> (c, r, k), and (c, k, n) @ (c, n, r) -> (c, k, r)
        made = (weight.T @ weight).view(channels, rank, -1) @ seen.transpose(0, 1)
        wanted = target.cross @ weight.T.view(channels, rank, -1).transpose(1, 2)
        return 1 - (answers * weight.T).sum() / energy, (2 / energy * (made - wanted.transpose(1, 2)),)

    (found,) = descend((F.normalize(filters, dim=2),), measure, EVALUATIONS)
    return found, mix(found, _through_gram(found, target))[0].view_as(pointwise)


def _through_gram(filters: Tensor, target: Target) -> Tensor:
    """Each filter's moments with every patch, (c, r, k) -> (c r, c, k)."""
    # gram is symmetric: (c, k, c' k') is its own rows of blocks, with nothing copied
    return (filters @ target.gram.flatten(2)).flatten(0, 1).view(-1, *target.weight.shape[1:])
