"""The forms that a weight can be factored into: their factors, in order of execution, and the weight these make."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from convsmith.algebra.linear import alike

Factors = tuple[Tensor, ...]
Part = tuple[Tensor, Tensor, Tensor]  # outputs (n'), entries of their rows of the last factor (m'), features (m', C K)


@dataclass(frozen=True, eq=False)
class Form(ABC):
    """How a weight W (N, C, K), K = kernel height x width, is made of smaller factors."""

    name: ClassVar[str]

    @abstractmethod
    def compose(self, factors: Factors) -> Tensor:
        """The weight (N, C, K) that the factors make."""

    def through(self, factors: Factors, gram: Tensor) -> Tensor:
        """W' G (N, C K) for a matrix G (C K, C K), factor by factor where that takes less."""
        return self.compose(factors).flatten(1) @ gram

    def balance(self, factors: Factors) -> Factors:
        """The same weight with its scale spread over the factors; as they are where a form's are orthonormal."""
        return factors

    def parts(self, factors: Factors) -> Iterator[Part]:
        """Outputs that share what they read of the factors before the last, which is of one row per output."""
        features = self._features(factors)
        yield _indices(factors[-1]), _indices(features), features

    def _features(self, factors: Factors) -> Tensor:
        """What an output reads if its row of the last factor is a unit vector, (m, C K)."""
        *before, last = factors
        units = torch.eye(last[0].numel()).to(last).view(-1, *last.shape[1:])
        return self.compose((*before, units)).flatten(1)


@final
@dataclass(frozen=True, eq=False)
class DepthwiseFirst(Form):
    """W'[n, c, k] = sum_r pointwise[n, c, r] depthwise[c, r, k]; factors: depthwise (C, r, K), pointwise (N, C, r).

    mask: (N, C) bool, the (output, input) pairs that the pointwise connects; None for all.
    """

    name: ClassVar[str] = "dw-pw"
    rank: int
    mask: Tensor | None = None

    def compose(self, factors: Factors) -> Tensor:
        """Multiply out."""
        depthwise, pointwise = factors
        return torch.einsum("ncr,crk->nck", pointwise, depthwise)

    def through(self, factors: Factors, gram: Tensor) -> Tensor:
        """The filters first: K / r times less to multiply."""
        depthwise, pointwise = factors
        seen = depthwise @ gram.view(len(depthwise), -1, len(gram))  # (c, r, k) @ (c, k, c' k') -> (c, r, c' k')
        return pointwise.flatten(1) @ seen.flatten(0, 1)

    def balance(self, factors: Factors) -> Factors:
        """Equal norms of each filter and of the column that reads it."""
        depthwise, pointwise = factors
        sizes, scale = _spread(depthwise.norm(dim=2), pointwise.norm(dim=0))
        return depthwise * (scale / sizes[0])[..., None], pointwise * (scale / sizes[1])

    def parts(self, factors: Factors) -> Iterator[Part]:
        """Outputs that are connected to the same inputs, or all."""
        if self.mask is None:
            yield from super().parts(factors)
            return
        features = self._features(factors)
        for outputs, free in alike(self.mask.repeat_interleave(self.rank, 1)):
            yield outputs, free, features[free]


@final
@dataclass(frozen=True, eq=False)
class PointwiseFirst(Form):
    """W'[n, c, k] = sum_r pointwise[n, r, c] depthwise[n, r, k]; factors: pointwise (N, r, C), depthwise (N, r, K)."""

    name: ClassVar[str] = "pw-dw"
    rank: int

    def compose(self, factors: Factors) -> Tensor:
        """Multiply out."""
        pointwise, depthwise = factors
        return pointwise.transpose(1, 2) @ depthwise

    def balance(self, factors: Factors) -> Factors:
        """Equal norms of each filter and of the map that it reads."""
        sizes, scale = _spread(*(factor.norm(dim=2) for factor in factors))
        pointwise, depthwise = (factor * (scale / size)[..., None] for factor, size in zip(factors, sizes, strict=True))
        return pointwise, depthwise

    def parts(self, factors: Factors) -> Iterator[Part]:
        """Every output alone: it reads maps of its own, each at every tap."""
        pointwise, depthwise = factors
        taps = torch.eye(depthwise.shape[2]).to(depthwise)
        for n, maps in enumerate(pointwise):
            features = torch.einsum("rc,kl->rkcl", maps, taps).flatten(2).flatten(0, 1)
            yield torch.tensor([n]).to(maps.device), _indices(features), features


@final
@dataclass(frozen=True, eq=False)
class ThreeWay(Form):
    """W'[n, c, k] = sum_r a[n, r] b[r, c] d[r, k], canonical polyadic; factors: b (R, C), d (R, K), a (N, R)."""

    name: ClassVar[str] = "cp"
    rank: int

    def compose(self, factors: Factors) -> Tensor:
        """Multiply out."""
        b, d, a = factors
        return torch.einsum("nr,rc,rk->nck", a, b, d)

    def balance(self, factors: Factors) -> Factors:
        """Equal norms of the three vectors of each term."""
        b, d, a = factors
        sizes, scale = _spread(b.norm(dim=1), d.norm(dim=1), a.norm(dim=0))
        return b * (scale / sizes[0])[:, None], d * (scale / sizes[1])[:, None], a * (scale / sizes[2])


@final
@dataclass(frozen=True, eq=False)
class Channel(Form):
    """W'[n, c, k] = sum_r a[n, r] f[r, c, k]: R whole filters, then 1x1; factors: f (R, C, K), a (N, R)."""

    name: ClassVar[str] = "channel"
    rank: int

    def compose(self, factors: Factors) -> Tensor:
        """Multiply out."""
        filters, mix = factors
        return torch.einsum("nr,rck->nck", mix, filters)

    def balance(self, factors: Factors) -> Factors:
        """Equal norms of each filter and of the column that reads it."""
        filters, mix = factors
        sizes, scale = _spread(filters.flatten(1).norm(dim=1), mix.norm(dim=0))
        return filters * (scale / sizes[0])[:, None, None], mix * (scale / sizes[1])


@final
@dataclass(frozen=True, eq=False)
class Spatial(Form):
    """W'[n, c, (i, j)] = sum_r h[n, r, j] v[r, c, i]: kh x 1, then 1 x kw; factors: v (R, C, kh), h (N, R, kw)."""

    name: ClassVar[str] = "spatial"
    rank: int
    kernel: tuple[int, int]

    def compose(self, factors: Factors) -> Tensor:
        """Multiply out."""
        vertical, horizontal = factors
        return torch.einsum("nrj,rci->ncij", horizontal, vertical).flatten(2)

    def balance(self, factors: Factors) -> Factors:
        """Equal norms of each vertical filter and of the horizontal ones that read it."""
        vertical, horizontal = factors
        sizes, scale = _spread(vertical.flatten(1).norm(dim=1), horizontal.norm(dim=(0, 2)))
        return vertical * (scale / sizes[0])[:, None, None], horizontal * (scale / sizes[1])[:, None]


@final
@dataclass(frozen=True, eq=False)
class Tucker(Form):
    """W'[n, c, k] = sum_s,r a[n, s] core[s, r, k] b[r, c], Tucker-2; factors: b (R, C), core (S, R, K), a (N, S)."""

    name: ClassVar[str] = "tucker"
    inputs: int
    outputs: int

    def compose(self, factors: Factors) -> Tensor:
        """Multiply out."""
        b, core, a = factors
        return torch.einsum("ns,srk,rc->nck", a, core, b)


def _indices(rows: Tensor) -> Tensor:
    """Those of all rows."""
    return torch.arange(len(rows), device=rows.device)


def _spread(*sizes: Tensor) -> tuple[list[Tensor], Tensor]:
    """The norms of parts, safe to divide by, and the norm that each part of an even spread has."""
    product = torch.stack(sizes).log().mean(0).exp()  # the geometric mean, 0 where one is 0, without overflow
    return [torch.where(size > 0, size, 1.0) for size in sizes], product
