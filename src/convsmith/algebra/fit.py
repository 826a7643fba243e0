"""One way in: a form, a weight, and the moments to fit it on; the factors, the error they attain, and the bias out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from convsmith.algebra.forms import Factors, Form
from convsmith.errors import ConvsmithError
from convsmith.registry import Registry
from convsmith.statistics import Statistics

# The variance of white noise added to every channel, as a share of the channel's own: with enough samples it only
# keeps factorizations sound; with fewer than ROWS per unknown it draws the fit to the weight, which is always known.
RIDGE, RIDGE_OF_FEW, ROWS = 1e-6, 1e-3, 10


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
    """What a method sees, in float64: the weight (N, C, K) and, with data, moments in which every channel is alive."""

    weight: Tensor
    statistics: Statistics | None

    @classmethod
    def of(cls, weight: Tensor, statistics: Statistics | None) -> Self:
        """Check what was given; raises ConvsmithError on NaN or infinity and on statistics of another layer."""
        if not weight.isfinite().all():
            raise ConvsmithError("The weight to decompose holds NaN or infinity; load a sound checkpoint.")
        if statistics is None:
            return cls(weight.detach().double(), None)
        rows = weight.detach().double().flatten(1).to(statistics.gram.device)
        if statistics.cross.shape != rows.T.shape:
            raise ConvsmithError(
                f"The statistics are of {_times(statistics.cross)} patches and responses, the weight needs "
                f"{_times(rows.T)}; calibrate with the model that is to be decomposed."
            )
        if not all(part.isfinite().all() for part in (statistics.gram, statistics.cross, statistics.energy)):
            raise ConvsmithError("The statistics hold NaN or infinity; check the calibration data and the model on it.")
        return cls(rows.reshape(weight.shape), _with_ridge(statistics, rows, weight.shape[1]))

    @property
    def moments(self) -> Statistics:
        """The moments; raises ConvsmithError where there are none."""
        if self.statistics is None:
            raise ConvsmithError("This method fits responses and needs data; give calibration data, or use svd.")
        return self.statistics

    @property
    def gram(self) -> Tensor:
        """The Gram matrix of patches by channels and taps, (C, K, C, K)."""
        _, channels, taps = self.weight.shape
        return self.moments.gram.view(channels, taps, channels, taps)

    @property
    def blocks(self) -> Tensor:
        """Its diagonal blocks, those of each channel, (C, K, K)."""
        return self.gram.diagonal(dim1=0, dim2=2).permute(2, 0, 1)

    @property
    def cross(self) -> Tensor:
        """Patches against responses, (C, K, N)."""
        return self.moments.cross.view(*self.weight.shape[1:], -1)


Solver = Callable[[Any, Target], Factors]
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


def fit(form: Form, weight: Tensor, method: str = "svd", statistics: Statistics | None = None) -> Fit:
    """Factor a weight (N, C, K) of any float type into a form; computed in float64 where the statistics lie.

    Raises ConvsmithError on an unknown method, one that does not know the form, one that needs statistics and has
    none, and on numbers that are not finite.

    >>> from convsmith.algebra import DepthwiseFirst
    >>> weight = torch.randn(8, 4, 9, generator=torch.Generator().manual_seed(0))
    >>> [round(fit(DepthwiseFirst(rank), weight).error, 2) for rank in (1, 4, 8)]
    [0.8, 0.33, 0.0]
    """
    table = METHODS[method]
    if type(form) not in table:
        knows = ", ".join(sorted(name for name, other in METHODS.items() if type(form) in other))
        raise ConvsmithError(f"{method} does not fit {form.name}; choose from {knows}.")
    found = form.balance(table[type(form)](form, Target.of(weight, statistics)))
    factors = tuple(factor.to(weight) for factor in found)
    made = form.compose(tuple(factor.double() for factor in factors))
    if statistics is None:
        return Fit(factors, relative_error(weight.detach(), made), None)
    return Fit(factors, statistics.error(made), statistics.bias(made).to(weight))


def relative_error(weight: Tensor, fitted: Tensor) -> float:
    """||W - W'|| / ||W|| in the Frobenius norm, both of one shape; 0 for a weight of zeros fitted by zeros.

    >>> relative_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0]))
    0.8
    """
    missed = (weight.double() - fitted.double()).norm().item()
    return missed / weight.double().norm().item() if missed else 0.0


def _with_ridge(statistics: Statistics, rows: Tensor, channels: int) -> Statistics:
    """The moments as if white noise had been on the inputs, and on the responses what the weight makes of it.

    Per channel, so that a channel's scale does not matter; a dead channel gets a little of the others' and is fitted
    to its weight.
    """
    unknowns = len(statistics.gram)
    share = RIDGE if statistics.samples >= ROWS * unknowns else RIDGE_OF_FEW
    variance = statistics.gram.diagonal().view(channels, -1).mean(1)
    mean = variance.mean()
    floor = torch.where(mean > 0, 1e-6 * mean, 1.0)
    noise = (share * (variance + floor)).repeat_interleave(unknowns // channels)
    return replace(
        statistics,
        gram=statistics.gram + torch.diag(noise),
        cross=statistics.cross + noise[:, None] * rows.T,
        energy=statistics.energy + rows.square() @ noise,
    )


def _times(matrix: Tensor) -> str:
    return " x ".join(map(str, matrix.shape))
