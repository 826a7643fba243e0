"""The three-way form W[n, c, k] = sum_r a[n, r] b[r, c] d[r, k]: 1x1, depthwise, 1x1, on weights or on moments."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from convsmith.algebra.descent import Point, descend
from convsmith.algebra.fitting import Target, fits
from convsmith.algebra.forms import Factors, ThreeWay
from convsmith.algebra.linear import improve, low_rank

# Starts all end within about a hundredth of each other, so a few are enough; from 300 evaluations on little is gained.
RANDOM_STARTS, EVALUATIONS_ON_WEIGHTS, EVALUATIONS, FEWEST = 2, 30, 300, 40
# Multiplications that a descent may take: at 256 channels about 130 evaluations, at 512 the fewest.
WORK = 2e11


@fits("als", ThreeWay)
def als_three_way(form: ThreeWay, target: Target) -> Factors:
    """The best of several starts; the least-squares a of given b and d, and descent on what is left over b and d.

        f_r = b_r (x) d_r,   A^T = (F G F^T)^-1 F B,   gradient of f = 2 A^T (A F G - B^T)

    G, B: moments of the patches, and of patches with responses; of weights alone I and W^T. The form contains the
    separable one (b_r a unit vector). The gradient needs no product with G that A did not.
    """
    units = target.deviations  # b is sought in these, in which the scale of a channel does not matter
    weight = target.weight * units[:, None]
    on_weights, on_moments = _Objective.of(Target(weight, None)), _Objective.of(target)
    starts = [_slices(weight, form.rank), *(_random(weight, form.rank, i) for i in range(RANDOM_STARTS))]
    tried = [descend(start, on_weights.measure, EVALUATIONS_ON_WEIGHTS) for start in starts]
    best = min(tried, key=lambda at: on_moments.measure(at)[0].item())
    evaluations = max(FEWEST, min(target.evaluations(EVALUATIONS), int(WORK / (form.rank * on_moments.work))))
    best = descend(best, on_moments.measure, evaluations)
    return best[0] / units, best[1], on_moments.solve(best)[0]


@dataclass(frozen=True)
class _Objective:
    """The share of the responses' energy that is missed; gram: None for the white inputs of a fit to the weights."""

    gram: Tensor | None  # (c k, c k)
    cross: Tensor  # (c k, n)
    energy: Tensor
    units: Tensor  # (c,)

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
        return improve(torch.zeros_like(answers.T), (gram + gram.T) / 2, answers), seen, answers

    def measure(self, at: Point) -> tuple[Tensor, Point]:
        """The objective where a is solved for, and its gradient by b and d."""
        b, d = at
        a, seen, answers = self.solve(at)
        # (r, c k) -> (r, c, k)
        gradient = (2 / self.energy * (a.T @ a @ seen - (self.cross @ a).T)).view(*b.shape, -1)
        parts = (
            torch.einsum("rck,rk->rc", gradient, d) / self.units,
            torch.einsum("rck,rc->rk", gradient, b / self.units),
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


def _random(weight: Tensor, rank: int, seed: int) -> Point:
    """Directions drawn at random, the same for a seed on every device."""
    generator = torch.Generator().manual_seed(seed)
    drawn = (torch.randn(rank, size, generator=generator, dtype=torch.float64) for size in weight.shape[1:])
    b, d = (F.normalize(each, dim=1).to(weight.device) for each in drawn)
    return b, d
