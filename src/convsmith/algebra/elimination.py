"""Which input channels a layer can best do without: exact backward elimination on second moments."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from convsmith.algebra.fitting import Target
from convsmith.algebra.linear import factorize

# Sets of channels are taken out one by one down to so many, and above a share at a time.
ONE_BY_ONE = 128


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer that reads channels: its weight and moments, and which of its inputs (C K,) each set of channels is.

    target: as a fit sees it. inputs: by set of channels that go together, their places among the C K inputs, all of one
    length.
    """

    target: Target
    inputs: Tensor


def eliminate(readers: Sequence[Reader], fewest: int = 1) -> tuple[list[int], list[float]]:
    """Sets of channels in the order in which they are best taken out, and the error when each is gone too.

    With A = G^-1 and W = A B of a reader, taking the inputs I of a set out and solving all other weights anew raises
    the squared error by

        tr(W_I^T (A_II)^-1 W_I),   and then   A <- A_RR - A_RI (A_II)^-1 A_IR,   W <- W_R - A_RI (A_II)^-1 W_I

    Args:
        readers: All layers that read the channels; the errors of each are relative to its own responses.
        fewest: How many sets stay.

    Returns:
        The sets taken out, first to last, and the sum of the squared relative errors after each.

    >>> from convsmith.algebra.second_moments import Statistics
    >>> weight = torch.tensor([[3.0, 1.0, 2.0]]).view(1, 3, 1)
    >>> alone = Reader(Target.of(weight, Statistics.of_weight(weight)), torch.arange(3)[:, None])
    >>> order, errors = eliminate([alone])
    >>> order, [round(error * 14, 3) for error in errors]
    ([1, 2], [1.0, 5.0])
    """
    states = [_State.of(reader) for reader in readers]
    alive = torch.ones(len(readers[0].inputs), dtype=torch.bool)
    order: list[int] = []
    errors: list[float] = []
    total = 0.0
    while (left := int(alive.sum())) > fewest:
        rises = torch.stack([state.rises() for state in states]).sum(0).masked_fill(~alive, torch.inf)
        for atom in rises.argsort()[: max(1, min(left - fewest, left // ONE_BY_ONE))].tolist():
            total += sum(state.take(atom) for state in states)
            alive[atom] = False
            order.append(atom)
            errors.append(total)
    return order, errors


@dataclass(eq=False)
class _State:
    inverse: Tensor  # A (m, m)
    weight: Tensor  # W (m, n)
    inputs: Tensor  # (sets, inputs of each)
    energy: Tensor

    @classmethod
    def of(cls, reader: Reader) -> "_State":
        root = factorize(reader.target.moments.gram)
        inverse = torch.cholesky_inverse(root)
        weight = torch.cholesky_solve(reader.target.moments.cross, root)
        return cls(inverse, weight, reader.inputs.to(inverse.device), reader.target.energy)

    def rises(self) -> Tensor:
        """By how much the relative error rises for each set; of no meaning for those that are gone."""
        block = self.inverse[self.inputs[:, :, None], self.inputs[:, None, :]]  # (s, i, i)
        read = self.weight[self.inputs]  # (s, i, n)
        solved = torch.cholesky_solve(read, factorize(block))
        return (read * solved).sum((1, 2)).cpu() / self.energy.cpu()

    def take(self, atom: int) -> float:
        """Take a set out; answers by how much the relative error rose."""
        gone = self.inputs[atom]
        across = self.inverse[:, gone]  # A_RI (m, i)
        root = factorize(self.inverse[gone][:, gone])
        read = self.weight[gone].clone()
        solved = torch.cholesky_solve(read, root)
        self.weight -= across @ solved
        self.inverse -= across @ torch.cholesky_solve(across.T, root)
        self.weight[gone] = 0
        self.inverse[gone] = 0
        self.inverse[:, gone] = 0
        return ((read * solved).sum() / self.energy).item()
