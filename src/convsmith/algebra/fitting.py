"""One way in: a form, a weight, and the moments to fit it on; the factors, the error they attain, and the bias out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from convsmith.algebra.conditioned import Conditioned
from convsmith.algebra.forms import Factors, Form
from convsmith.algebra.relu import relu_refit
from convsmith.algebra.request import WEIGHT_ALONE, FitRequest
from convsmith.algebra.second_moments import Statistics
from convsmith.errors import ConvsmithError, DataError
from convsmith.registry import Registry
from convsmith.text import times


@dataclass(frozen=True)
class Fit:
    """Factors in the weight's type, the relative error they attain, and the bias (N,) that goes with them.

    error: with statistics that of the responses, the bias refitted; without, ||W - W'|| / ||W||, and no bias.
    """

    factors: Factors
    error: float
    bias: Tensor | None


@dataclass(frozen=True)
class Target:
    """What a method sees, in float64: the weight (N, C, K) and, with data, moments in which every channel is alive.

    draft: whether a fit that ranks and layers can be compared by is enough.
    """

    weight: Tensor
    statistics: Conditioned | None
    draft: bool = False

    @classmethod
    def of(cls, weight: Tensor, statistics: Statistics | None, draft: bool = False) -> Self:
        """Check what was given; raises ConvsmithError on NaN or infinity and on statistics of another layer."""
        if not weight.isfinite().all():
            raise ConvsmithError("The weight to decompose holds NaN or infinity; load a sound checkpoint.")
        if statistics is None:
            return cls(weight.detach().double(), None, draft)
        rows = weight.detach().double().flatten(1).to(statistics.gram.device)
        if statistics.cross.shape != rows.T.shape:
            raise DataError(
                f"The statistics are of {times(statistics.cross.shape)} patches and responses, the weight needs "
                f"{times(rows.T.shape)}; calibrate with the model that is to be decomposed."
            )
        # sums: to ask each entry takes a copy of the Gram matrix
        if not all(part.sum().isfinite() for part in (statistics.gram, statistics.cross, statistics.energy)):
            raise DataError("The statistics hold NaN or infinity; check the calibration data and the model on it.")
        return cls(rows.reshape(weight.shape), Conditioned.of(statistics, rows, weight.shape[1]), draft)

    def evaluations(self, most: int) -> int:
        """How often a descent may evaluate its objective: `most`, and of a draft a fifth."""
        return -(-most // 5) if self.draft else most

    @property
    def moments(self) -> Conditioned:
        """The moments; raises ConvsmithError where there are none."""
        if self.statistics is None:
            raise DataError("This method fits responses and needs data; give calibration data, or use svd.")
        return self.statistics

    @property
    def measured(self) -> Statistics:
        """The moments as they came; raises ConvsmithError where there are none."""
        return self.moments.measured

    @property
    def gram(self) -> Tensor:
        """The Gram matrix of patches by channels and taps, (C, K, C, K), a copy; strips of it take less memory."""
        _, channels, taps = self.weight.shape
        return self.moments.gram.view(channels, taps, channels, taps)

    @property
    def blocks(self) -> Tensor:
        """Its diagonal blocks, those of each channel, (C, K, K)."""
        return self.moments.blocks

    @property
    def cross(self) -> Tensor:
        """Patches against responses, (C, K, N)."""
        return self.moments.cross.view(*self.weight.shape[1:], -1)

    @property
    def deviations(self) -> Tensor:
        """Of each channel's input, (C,): units in which channels of any scale count the same; 1 without data."""
        if self.statistics is None:
            return torch.ones_like(self.weight[0, :, 0])
        variance = self.statistics.blocks.diagonal(dim1=1, dim2=2).mean(1)
        # a dead channel has none of its own
        return torch.where(variance > 1e-9 * variance.mean(), variance, variance.mean()).sqrt()

    def best(self, form: Form, *found: Factors) -> Factors:
        """Those that lose least on the moments as they came, the first of equals."""
        return min(found, key=lambda factors: response_error(form, factors, self.measured))

    @property
    def energy(self) -> Tensor:
        """The responses' mean square, or the weight's sum of squares; safe to divide by."""
        energy = self.weight.square() if self.statistics is None else self.statistics.energy
        return energy.sum().clamp(min=1e-300)


Solver = Callable[[Any, Target], Factors]
WITH_DATA, WITHOUT_DATA = ("als", "gsvd", "svd"), ("svd", "als")  # the best first
METHODS = Registry[dict[type[Form], Solver]]("decomposition method")


def fits(method: str, form: type[Form]) -> Callable[[Solver], Solver]:
    """Decorate `solve(form, target) -> factors` (float64, any scale) to enter it as a method's way to fit a form."""

    def enter(solve: Solver) -> Solver:
        table = METHODS[method] if method in METHODS else METHODS.add(method, {})
        if form in table:
            raise ValueError(f"{method} of {form.name} is registered twice")
        table[form] = solve
        return solve

    return enter


def fit(form: Form, weight: Tensor, request: FitRequest = WEIGHT_ALONE) -> Fit:
    """Factor a weight (N, C, K) of any float type into a form; computed in float64 where the statistics lie.

    Raises ConvsmithError on an unknown method, and on one that does not know the form or lacks statistics. So it does
    on numbers that are not finite.

    >>> from convsmith.algebra import DepthwiseFirst
    >>> weight = torch.randn(8, 4, 9, generator=torch.Generator().manual_seed(0))
    >>> [round(fit(DepthwiseFirst(rank), weight).error, 2) for rank in (1, 4, 8)]
    [0.8, 0.33, 0.0]
    """
    statistics, rows = request.statistics, request.rows
    method = request.method or _usual(type(form), statistics)
    table = METHODS[method]
    if type(form) not in table:
        knows = ", ".join(sorted(name for name, other in METHODS.items() if type(form) in other))
        raise ConvsmithError(f"{method} does not fit {form.name}; choose from {knows}.")
    if rows is not None and statistics is None:
        raise DataError("Rows refine a fit to statistics; give the statistics of the same layer too.")
    found = form.balance(table[type(form)](form, Target.of(weight, statistics, request.draft)))
    if statistics is None:
        factors = tuple(factor.to(weight) for factor in found)
        return Fit(factors, relative_error(weight.detach(), form.compose(_double(factors))), None)
    bias = statistics.bias(form.compose(found))
    if rows is not None:
        found, bias = relu_refit(form, found, bias, rows)
    factors = tuple(factor.to(weight) for factor in found)
    if rows is None:
        bias = statistics.bias(form.compose(_double(factors)))
    return Fit(factors, response_error(form, factors, statistics, bias), bias.to(weight))


def _usual(form: type[Form], statistics: Statistics | None) -> str:
    return next(name for name in (WITHOUT_DATA if statistics is None else WITH_DATA) if form in METHODS[name])


def _double(factors: Factors) -> Factors:
    return tuple(factor.double() for factor in factors)


def relative_error(weight: Tensor, fitted: Tensor) -> float:
    """||W - W'|| / ||W|| in the Frobenius norm, both of one shape; 0 for a weight of zeros fitted by zeros.

    >>> relative_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0]))
    0.8
    """
    missed = (weight.double() - fitted.double()).norm().item()
    return missed / weight.double().norm().item() if missed else 0.0


def response_error(form: Form, factors: Factors, statistics: Statistics, bias: Tensor | None = None) -> float:
    """The relative error of the responses that factors give, as `Statistics.error` of the weight that they make."""
    at = _double(tuple(factor.to(statistics.gram.device) for factor in factors))
    return statistics.error(form.compose(at), form.through(at, statistics.gram), bias)
