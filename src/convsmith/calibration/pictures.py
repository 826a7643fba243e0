"""Calibration images, kept as bytes where a data set has them so: a quarter of the memory, the same numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Bytes:
    """Images (n, c, h, w) as uint8, normalized whenever a stretch of them is read.

    >>> import torch
    >>> Bytes(torch.full((2, 1, 1, 1), 51, dtype=torch.uint8), lambda images: images / 255)[:1].item()
    0.20000000298023224
    """

    pixels: Tensor
    normalize: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, part: slice) -> Tensor:
        return self.normalize(self.pixels[part])


# What hands out any stretch of itself as normalized floats (n, c, h, w).
Pictures = Tensor | Bytes


@runtime_checkable
class Drawn(Protocol):
    """A split that gives its images as bytes, with what makes them what a net reads."""

    @property
    def normalize(self) -> Callable[[Tensor], Tensor]:
        """From uint8 (n, c, h, w) to normalized floats."""

    def drawn(self, count: int, *, seed: int) -> Tensor:
        """So many images as uint8 (n, c, h, w), drawn by the seed."""
