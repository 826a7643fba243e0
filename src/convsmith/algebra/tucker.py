"""Tucker-2: fewer channels in, a smaller kernel, channels out again; of the weight, and of the responses."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from convsmith.algebra.descent import Point, descend
from convsmith.algebra.fitting import Target, fits
from convsmith.algebra.forms import Factors, Tucker
from convsmith.algebra.linear import factorize, low_rank

SWEEPS = 5  # of the orthogonal iteration, which has all but converged by then
EVALUATIONS = 60


@fits("svd", Tucker)
def svd_tucker(form: Tucker, target: Target) -> Factors:
    """Orthonormal bases of input and output channels and the core between, by higher-order orthogonal iteration.

    From De Lathauwer et al., "On the best rank-1 and rank-(R1, .., RN) approximation of higher-order tensors" (2000).
    """
    weight = target.weight
    inputs = _basis(weight.transpose(0, 1), form.inputs)  # (c, r)
    for _ in range(SWEEPS):
        outputs = _basis(torch.einsum("nck,cr->nrk", weight, inputs), form.outputs)
        inputs = _basis(torch.einsum("nck,ns->csk", weight, outputs), form.inputs)
    return inputs.T, torch.einsum("nck,ns,cr->srk", weight, outputs, inputs), outputs


def _basis(weight: Tensor, rank: int) -> Tensor:
    """The first left singular vectors of a weight unfolded along its first dimension, (m, ..) -> (m, r)."""
    rows = weight.flatten(1)
    vectors: Tensor = torch.linalg.eigh(rows @ rows.T).eigenvectors
    return vectors[:, -rank:].flip(-1)


@fits("als", Tucker)
def als_tucker(form: Tucker, target: Target) -> Factors:
    """The reduced-rank regression of responses on fewer channels, and descent on what is left over their basis b.

        F = b (x) I,   L L^T = F G F^T,   L^-1 F B = U S V^T,   core = S_s U_s^T L^-1,   a = V_s,   W' = a core F

    G, B: moments of the patches, and of patches with responses. Kalle et al. (NeurIPS 2025, arXiv 2511.04494) fit
    Tucker-2 in this norm of the inputs' covariance too; here core and outputs are eliminated (Golub and Pereyra, 1973).
    """
    objective = _Objective.of(form, target)
    starts = (svd_tucker(form, target)[0] * target.deviations, _gsvd_basis(form, target))
    best = min(starts, key=lambda basis: objective.measure((basis,))[0].item())
    (found,) = descend((best,), objective.measure, target.evaluations(EVALUATIONS))
    found = torch.linalg.qr(found.T).Q.T.contiguous()  # the same space, so that no two channels tell the same
    core, mix, _ = objective.solve(found)
    return found / target.deviations, core.view(len(core), form.inputs, -1), mix


def _gsvd_basis(form: Tucker, target: Target) -> Tensor:
    """The inputs' basis (r, c) of the weight in the metric of channels, the taps taken for uncorrelated."""
    channels = target.gram.diagonal(dim1=1, dim2=3).mean(-1)  # (c, c)
    root = factorize(channels)
    rows = target.weight.transpose(1, 2).flatten(0, 1) @ root  # (n, c, k) -> (n k, c)
    vectors: Tensor = torch.linalg.eigh(rows.T @ rows).eigenvectors[:, -form.inputs :]
    basis: Tensor = torch.linalg.solve_triangular(root.T, vectors, upper=True)
    return basis.T * target.deviations


@dataclass(frozen=True)
class _Objective:
    """The share of the responses' energy that the best core and outputs miss."""

    gram: Tensor  # (c, k c k)
    cross: Tensor  # (c, k n)
    energy: Tensor
    units: Tensor  # (c,)
    taps: int
    outputs: int

    @classmethod
    def of(cls, form: Tucker, target: Target) -> Self:
        """That of a target with data."""
        gram, cross, taps = target.gram.flatten(1), target.cross.flatten(1), target.weight.shape[2]
        return cls(gram, cross, target.energy, target.deviations, taps, form.outputs)

    def solve(self, basis: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The core (s, r k), the outputs' basis (n, s), and the features' moments with the patches (r k, c, k)."""
        reduced = basis / self.units
        features = len(reduced) * self.taps
        seen = (reduced @ self.gram).view(features, -1, self.taps)
        # (r k, c, k') x (r', c) -> (r k, r' k')
        gram = torch.einsum("mck,rc->mrk", seen, reduced).flatten(1)
        root = factorize((gram + gram.T) / 2)
        answers = (reduced @ self.cross).view(features, -1)
        whitened = torch.linalg.solve_triangular(root, answers, upper=False)
        left, right = low_rank(whitened[None], min(self.outputs, features))
        return torch.linalg.solve_triangular(root.T, left[0], upper=True).T, right[0].T, seen

    def measure(self, at: Point) -> tuple[Tensor, Point]:
        """The objective where core and outputs are solved for, and its gradient by the inputs' basis."""
        (basis,) = at
        core, mix, seen = self.solve(basis)
        weight = mix @ core  # (n, r k)
        cross = self.cross.view(*seen.shape[1:], -1)  # (c, k, n)
        made = (weight.T @ weight @ seen.flatten(1)).view(-1, self.taps, *seen.shape[1:])  # (r, k, c, k')
        wanted = torch.einsum("nrk,ckn->rc", weight.view(len(mix), -1, self.taps), cross)
        gradient = (made.diagonal(dim1=1, dim2=3).sum(-1) - wanted) / self.units
        answered = (weight * torch.einsum("rc,ckn->nrk", basis / self.units, cross).flatten(1)).sum()
        return 1 - answered / self.energy, (2 / self.energy * gradient,)
