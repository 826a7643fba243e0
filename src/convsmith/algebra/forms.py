"""The forms that a weight can be factored into: what their factors are, and the weight these make."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

Factors = tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Form(ABC):
    """How a weight W (N, C, K), K = kernel height x width, is made of smaller factors."""

    name: ClassVar[str]

    @abstractmethod
    def compose(self, factors: Factors) -> Tensor:
        """The weight (N, C, K) that the factors make."""

    def balance(self, factors: Factors) -> Factors:
        """The same weight with its scale spread over the factors; as they are where a form's are orthonormal."""
        return factors


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

    def balance(self, factors: Factors) -> Factors:
        """Equal norms of each filter and of the column that reads it."""
        depthwise, pointwise = factors
        sizes, scale = _spread(depthwise.norm(dim=2), pointwise.norm(dim=0))
        return depthwise * (scale / sizes[0])[..., None], pointwise * (scale / sizes[1])


@final
@dataclass(frozen=True, eq=False)
class PointwiseFirst(Form):
    """W'[n, c, k] = sum_r pointwise[n, c, r] depthwise[n, r, k]; factors: depthwise (N, r, K), pointwise (N, C, r)."""

    name: ClassVar[str] = "pw-dw"
    rank: int

    def compose(self, factors: Factors) -> Tensor:
        """Multiply out."""
        depthwise, pointwise = factors
        return pointwise @ depthwise

    def balance(self, factors: Factors) -> Factors:
        """Equal norms of each filter and of the map that it reads."""
        depthwise, pointwise = factors
        sizes, scale = _spread(depthwise.norm(dim=2), pointwise.norm(dim=1))
        return depthwise * (scale / sizes[0])[..., None], pointwise * (scale / sizes[1])[:, None]


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


def _spread(*sizes: Tensor) -> tuple[list[Tensor], Tensor]:
    """The norms of parts, safe to divide by, and the norm that each part of an even spread has."""
    product = torch.stack(sizes).log().mean(0).exp()  # the geometric mean, 0 where one is 0, without overflow
    return [torch.where(size > 0, size, 1.0) for size in sizes], product
