"""A convolution's own weight solved anew, on all of its input channels or on some that are kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar, final

import torch
from torch import Tensor

from convsmith.algebra.fitting import Fit, Target, response_error
from convsmith.algebra.forms import Factors, Form, Part
from convsmith.algebra.linear import factorize
from convsmith.algebra.relu import relu_error, relu_refit
from convsmith.algebra.second_moments import Rows, Statistics


@final
@dataclass(frozen=True, eq=False)
class Dense(Form):
    """W' = W on the channels of `kept` (C,) bool, and zero elsewhere; one factor (N, C, K)."""

    name: ClassVar[str] = "dense"
    kept: Tensor

    def compose(self, factors: Factors) -> Tensor:
        """The factor, with zeros for what is not kept."""
        (weight,) = factors
        return weight * self.kept.to(weight)[:, None]

    def parts(self, factors: Factors) -> Iterator[Part]:
        """All outputs, each reading every tap of the channels kept."""
        (weight,) = factors
        free = self.kept.repeat_interleave(weight.shape[2]).nonzero()[:, 0].to(weight.device)
        features = torch.zeros(len(free), weight[0].numel()).to(weight)
        features[torch.arange(len(free)), free] = 1
        yield torch.arange(len(weight)), free, features


# Of each input's variance: how much a change of its weights is held back.
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


def refit(
    weight: Tensor,
    statistics: Statistics,
    held_out: Statistics | None = None,
    rows: Sequence[Rows] = (),
    kept: Tensor | None = None,
) -> Fit:
    """The weight (N, C, K) that answers what is wanted with the least squared error, and its bias.

        min mean |y - W' x - b'|^2 + t sum_i var(x_i) |W'_i - W_i|^2   over W' that is zero outside `kept`

    Args:
        weight: As it is, of any float type.
        statistics: Moments of the patches and of the responses wanted.
        held_out: The same of other images, on which t is chosen; without them t is the least.
        rows: Where a ReLU stands behind, patches and responses to refit for it, and others to judge that by.
        kept: (C,) bool, the input channels that stay; None for all.

    Returns:
        The weight as one factor (N, C, K), its relative error and its bias (N,).

    Raises:
        ConvsmithError: On numbers that are not finite, and on statistics of another layer.

    >>> weight = torch.eye(2).view(2, 2, 1)
    >>> alike = torch.tensor([[2.0, 1.9], [1.9, 2.0]], dtype=torch.float64)  # channels that say much the same
    >>> zero, one = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    >>> statistics = Statistics(alike, alike, 2 * one, zero, zero, one, 10**9)
    >>> refit(weight, statistics, kept=torch.tensor([True, False])).factors[0][..., 0].round(decimals=2).tolist()
    [[1.0, 0.0], [0.949999988079071, 0.0]]
    """
    channels = torch.ones(weight.shape[1], dtype=torch.bool) if kept is None else kept
    form = Dense(channels)
    ridge = RIDGES[0]
    if held_out is not None:
        errors = {t: held_out.error(_solved(form, weight, statistics, t)) for t in RIDGES}
        ridge = min(errors, key=errors.__getitem__)
        unchanged = held_out.error(form.compose((weight.double(),)))
        statistics = statistics.joined(held_out)
        if channels.all() and unchanged <= errors[ridge]:
            ridge = inf
    best = _solved(form, weight, statistics, ridge)
    factors: Factors = (best,)
    bias = statistics.bias(best)
    if rows:
        again, other = relu_refit(form, factors, bias, rows[0])
        if relu_error(again[0], other, rows[-1]) < relu_error(best, bias, rows[-1]):
            factors, bias = again, other
    (made,) = (factor.to(weight) for factor in factors)
    return Fit((made,), response_error(form, (made,), statistics, bias), bias.to(weight))


def _solved(form: Dense, weight: Tensor, statistics: Statistics, ridge: float) -> Tensor:
    """The weight (N, C, K) in float64 where its change is held back so much."""
    target = Target.of(weight, statistics)
    start = form.compose((target.weight,)).flatten(1)
    if ridge == inf:
        return start.view_as(target.weight)
    free = form.kept.repeat_interleave(weight.shape[2]).nonzero()[:, 0].to(start.device)
    moments = target.moments.gram
    gram, missed = moments[free][:, free], target.moments.cross[free] - moments[free] @ start.T
    change = torch.cholesky_solve(missed, factorize(gram + ridge * torch.diag(gram.diagonal())))
    start[:, free] += change.T
    return start.view_as(target.weight)
