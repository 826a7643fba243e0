"""A product of any linear kernels: each output of each reads certain channels through a small window."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import prod
from typing import ClassVar, final

import torch
from torch import Tensor

from convsmith.algebra.descent import descend
from convsmith.algebra.fitting import Target, fits
from convsmith.algebra.forms import Factors, Form, Part

EVALUATIONS = 40  # of the product and its gradient


@dataclass(frozen=True, eq=False)
class Link:
    """One kernel: output n reads the channels reads[n] through a window; without weight it only passes one on."""

    reads: Tensor  # (n, r)
    window: tuple[int, int] = (1, 1)
    weighted: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its factor, (n, r, kh, kw)."""
        return (*self.reads.shape, *self.window)


@dataclass(frozen=True, eq=False)
class _Map:
    """A linear map by taps: (n, c, kh, kw), or (n, kh, kw) where every channel keeps to itself."""

    taps: Tensor

    @property
    def diagonal(self) -> bool:
        return self.taps.dim() == 3

    @property
    def size(self) -> tuple[int, int]:
        return self.taps.shape[-2], self.taps.shape[-1]

    def cost(self, first: "_Map") -> tuple[int, int]:
        """What comes cheapest first: few taps in the product, then few multiplications."""
        ours, theirs = self.size, first.size
        grown = (ours[0] + theirs[0] - 1) * (ours[1] + theirs[1] - 1)
        inner = 1 if self.diagonal or first.diagonal else len(first.taps)
        return grown, len(self.taps) * inner * prod(ours) * prod(theirs) * first.taps[0, ..., 0, 0].numel()

    def after(self, first: "_Map") -> "_Map":
        """The product of both."""
        (height, width), (kh, kw) = self.size, first.size
        total: Tensor | None = None
        for i, j in product(range(height), range(width)):
            here = _mix(self.taps[..., i, j], first.taps, self.diagonal)
            here = torch.nn.functional.pad(here, (j, width - 1 - j, i, height - 1 - i))
            total = here if total is None else total + here
        assert total is not None and total.shape[-2:] == (height + kh - 1, width + kw - 1)
        return _Map(total)


def _mix(tap: Tensor, taps: Tensor, diagonal: bool) -> Tensor:
    if diagonal:
        return tap.view(-1, *(1,) * (taps.dim() - 1)) * taps
    if taps.dim() == 3:
        return tap[..., None, None] * taps
    return (tap @ taps.flatten(1)).view(len(tap), *taps.shape[1:])


@final
@dataclass(frozen=True, eq=False)
class Chain(Form):
    """W' = the product of all links on `inputs` channels; a factor (n, r, kh, kw) for each that has a weight.

    >>> pair = Chain(2, (Link(torch.tensor([[0], [1]]), (1, 3)), Link(torch.tensor([[0, 1]]))))
    >>> pair.compose((torch.ones(2, 1, 1, 3), torch.tensor([2.0, 3.0]).view(1, 2, 1, 1))).tolist()
    [[[2.0, 2.0, 2.0], [3.0, 3.0, 3.0]]]
    """

    name: ClassVar[str] = "seq"
    inputs: int
    links: tuple[Link, ...]

    def compose(self, factors: Factors) -> Tensor:
        """Multiply out, the cheapest neighbours first."""
        maps = self._maps(factors)
        while len(maps) > 1:
            costs = [second.cost(first) for first, second in pairwise(maps)]
            i = costs.index(min(costs))
            maps[i : i + 2] = [maps[i + 1].after(maps[i])]
        return maps[0].taps.flatten(2)

    def parts(self, factors: Factors) -> Iterator[Part]:
        """Outputs whose last kernel reads the same channels, which must be one with a weight."""
        *before, _ = factors
        *links, last = self.links
        for reads in torch.unique(last.reads, dim=0):
            outputs = (last.reads == reads).all(1).nonzero()[:, 0]
            units = torch.eye(prod(last.shape[1:])).to(factors[0]).view(-1, *last.shape[1:])
            alone = Chain(self.inputs, (*links, Link(reads.expand(len(units), -1), last.window)))
            yield outputs, torch.arange(len(units)), alone.compose((*before, units)).flatten(1)

    def _maps(self, factors: Factors) -> list[_Map]:
        weights, maps, inputs = iter(factors), [], self.inputs
        for link in self.links:
            weight = next(weights) if link.weighted else torch.ones(link.shape).to(factors[0])
            place = torch.arange(inputs)[:, None]
            if torch.equal(link.reads, place):
                maps.append(_Map(weight[:, 0]))
            else:
                index = link.reads[..., None, None].expand(link.shape).to(weight.device)
                empty = weight.new_zeros(len(link.reads), inputs, *link.window)
                maps.append(_Map(empty.scatter(1, index, weight)))
            inputs = len(link.reads)
        return maps


@fits("als", Chain)
def descend_chain(form: Chain, target: Target) -> Factors:
    """L-BFGS on all kernels at once from a fixed draw: sweeps that solve for one at a time creep along valleys.

        min |W' - W|^2,   or with moments G of patches and B against responses   tr W' G W'^T - 2 tr W' B

    It ends in a local optimum. In float32, as the product of all is large and its optimum flat. The weight is brought
    to one scale: a last kernel of another size than the rest would make the descent creep.
    """
    size = (target.weight.square().mean().sqrt() * prod(target.weight.shape[1:]) ** 0.5).clamp(min=1e-150)
    weight, energy, moments = (target.weight / size).float(), (target.energy / size**2).float(), None
    if target.statistics is not None:
        moments = target.statistics.gram.float(), (target.statistics.cross / size).float()

    def measure(at: Factors) -> tuple[Tensor, Factors]:
        with torch.enable_grad():
            free = tuple(factor.detach().requires_grad_() for factor in at)
            objective = _objective(form.compose(free), weight, energy, moments)
            gradients = torch.autograd.grad(objective, free)
        return objective.detach(), gradients

    *before, last = (factor.double() for factor in descend(_start(form.links, weight), measure, EVALUATIONS))
    return *before, last * size


def _objective(made: Tensor, weight: Tensor, energy: Tensor, moments: tuple[Tensor, Tensor] | None) -> Tensor:
    if moments is None:
        return (made - weight).square().sum() / energy
    (gram, cross), rows = moments, made.flatten(1)
    return 1 + ((rows @ gram * rows).sum() - 2 * (rows * cross.T).sum()) / energy


def _start(links: Sequence[Link], weight: Tensor) -> Factors:
    """Kernels that pass the variance on; none where the weight is zero."""
    draw = torch.Generator().manual_seed(0)
    kernels = [torch.randn(link.shape, generator=draw) / prod(link.shape[1:]) ** 0.5 for link in links if link.weighted]
    kernels[-1] *= float(weight.any())
    return tuple(factor.to(weight) for factor in kernels)
