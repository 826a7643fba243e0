"""The three-way form W[n, c, k] = sum_r a[n, r] b[r, c] d[r, k]: 1x1, depthwise, 1x1, on weights or on moments."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from convsmith.algebra.descent import Point, descend
from convsmith.algebra.fitting import Target, fits
from convsmith.algebra.forms import Factors, ThreeWay
from convsmith.algebra.linear import factorize, low_rank

# From 300 evaluations on little is gained; on weights alone they take no product with a Gram matrix.
EVALUATIONS_ON_WEIGHTS, EVALUATIONS, FEWEST = 30, 300, 40
# Multiplications that a descent may take: at 256 channels about 130 evaluations, at 512 the fewest.
WORK = 2e11
# What the energies of terms weigh beside what is missed: at first of all responses, then of what is missed itself.
FIRST, RIDGE, ROUNDS = 1e-3, 0.05, 2


@fits("als", ThreeWay)
def als_three_way(form: ThreeWay, target: Target) -> Factors:
    """From slices of the weight on, the least-squares a of given b and d, and descent on what is left over b and d.

        A^T = (F G F^T + t D)^-1 F B,   f_r = b_r (x) d_r,   gradient of f = 2 A^T (A F G - B^T) + 2 t D' A^T A

    G, B: moments of the patches, and of patches with responses; of weights alone I and W^T. The form contains the
    separable one (b_r a unit vector). The gradient needs no product with G that A did not.

    t D: |f_r|^2 in units of each channel's deviation, so that t times the sum of the terms' energies is added to what
    is missed. Terms that grow and cancel each other spoil int8, and gain next to nothing. Phan et al., "Stable Low-rank
    Tensor Decomposition for Compression of Convolutional Neural Network" (ECCV 2020), bound them. Here t follows what
    is missed, so that a weight that is exactly of this form is still found.
    """
    units = target.deviations  # b is sought in these, in which the scale of a channel does not matter
    weight = target.weight * units[:, None]
    on_weights, on_moments = _Objective.of(Target(weight, None)), _Objective.of(target)
    evaluations = max(FEWEST, min(target.evaluations(EVALUATIONS), int(WORK / (form.rank * on_moments.work))))
    best = descend(_slices(weight, form.rank), on_weights.measure, EVALUATIONS_ON_WEIGHTS)
    for _ in range(ROUNDS):
        on_moments = on_moments.held(best)
        best = descend(best, on_moments.measure, evaluations // ROUNDS)
    return best[0] / units, best[1], on_moments.held(best).solve(best)[0]


@dataclass(frozen=True)
class _Objective:
    """The share of the responses' energy that is missed; gram: None for the white inputs of a fit to the weights."""

    gram: Tensor | None  # (c k, c k)
    cross: Tensor  # (c k, n)
    energy: Tensor
    units: Tensor  # (c,)
    ridge: float = FIRST

    def held(self, at: Point) -> Self:
        """The same with the ridge that goes with what is missed there."""
        a, seen, answers = self.solve(at)
        features = ((at[0] / self.units)[:, :, None] * at[1][:, None]).flatten(1)
        missed = 1 + ((a.T @ a * (seen @ features.T)).sum() - 2 * (answers * a.T).sum()) / self.energy
        return replace(self, ridge=RIDGE * missed.clamp(min=0).item())

    @classmethod
    def of(cls, target: Target) -> Self:
        """That of a target: on its moments, or on white inputs where it has none."""
        if target.statistics is None:
            return cls(None, target.weight.flatten(1).T, target.energy, target.deviations)
        return cls(target.statistics.gram, target.statistics.cross, target.energy, target.deviations)

    @property
    def work(self) -> int:
        """Multiplications of an evaluation per term."""
        return self.cross.numel() if self.gram is None else self.gram.numel()

    def solve(self, at: Point) -> tuple[Tensor, Tensor, Tensor]:
        """The factor a (n, r), and the features' moments with the patches (r, c k) and with the responses (r, n)."""
        b, d = at
        features = ((b / self.units)[:, :, None] * d[:, None]).flatten(1)
        seen = features if self.gram is None else features @ self.gram
        gram, answers = seen @ features.T, features @ self.cross
        ridge = torch.diag(self.ridge * b.square().sum(1) * d.square().sum(1))
        return torch.cholesky_solve(answers, factorize((gram + gram.T) / 2 + ridge)).T, seen, answers

    def measure(self, at: Point) -> tuple[Tensor, Point]:
        """The objective where a is solved for, and its gradient by b and d."""
        b, d = at
        a, seen, answers = self.solve(at)
        # (r, c k) -> (r, c, k)
        gradient = (2 / self.energy * (a.T @ a @ seen - (self.cross @ a).T)).view(*b.shape, -1)
        held = (2 * self.ridge / self.energy * a.square().sum(0))[:, None]  # the ridge's share of the gradient
        parts = (
            (gradient @ d[:, :, None])[:, :, 0] / self.units + held * d.square().sum(1)[:, None] * b,
            ((b / self.units)[:, None] @ gradient)[:, 0] + held * b.square().sum(1)[:, None] * d,
        )
        return 1 - (answers * a.T).sum() / self.energy, parts


def _slices(weight: Tensor, rank: int) -> Point:
    """The largest terms of the singular value decompositions of W along each of its principal filters."""
    rows = weight.reshape(1, -1, weight.shape[2])  # (1, n c, k)
    _, filters = low_rank(rows, min(rows.shape[1:]))
    _, sizes, right = torch.linalg.svd(torch.einsum("nck,qk->qnc", weight, filters[0]), full_matrices=False)
    largest = sizes.flatten().argsort(descending=True)[:rank]
    slice_, term = largest // sizes.shape[1], largest % sizes.shape[1]
    return right[slice_, term], filters[0][slice_]
