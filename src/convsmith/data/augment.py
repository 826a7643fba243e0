"""Random changes of uint8 image batches (n, c, h, w), drawn from a given CPU generator, the same on every device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from convsmith.errors import ConvsmithError


@dataclass(frozen=True)
class Augment:
    """How a training pass varies its images; fractions are of the image's side, 0 switches a change off.

    `shift` is the largest move (zeros enter at the border). `flip` mirrors every second image on average. `cutout` is
    the side of a blackened square (DeVries and Taylor, arXiv 1708.04552). `area` is the least share of an image that a
    random resized crop keeps (Szegedy et al., CVPR 2015). That crop takes the place of the shift where images are
    streamed.

    >>> Augment(shift=2.0)
    Traceback (most recent call last):
    convsmith.errors.ConvsmithError: Augment: shift is 2.0; give a fraction from 0 to 1.
    """

    shift: float = 0.125
    flip: bool = True
    cutout: float = 0.0
    area: float = 0.35

    def __post_init__(self) -> None:
        for name, value in (("shift", self.shift), ("cutout", self.cutout), ("area", self.area)):
            if not 0 <= value <= 1:
                raise ConvsmithError(f"Augment: {name} is {value}; give a fraction from 0 to 1.")


PLAIN = Augment(shift=0.0, flip=False, cutout=0.0, area=1.0)  # images as they are


def cutout(images: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Blacken one square per image (n, c, h, w); it lies anywhere, so its center may be at the border."""
    n, _, h, w = images.shape
    rows = _stripes(n, h, fraction, generator).view(n, 1, h, 1)
    columns = _stripes(n, w, fraction, generator).view(n, 1, 1, w)
    return images * ~(rows & columns).to(images.device)


def _stripes(n: int, side: int, fraction: float, generator: torch.Generator) -> Tensor:
    """Mark `fraction` of each of n axes of length `side`, around a random center."""
    center = torch.rand(n, 1, generator=generator) * side
    return (torch.arange(side) + 0.5 - center).abs() < fraction * side / 2
