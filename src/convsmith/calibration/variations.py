"""Images moved and mirrored at random, so that few stand for more: drawn on the CPU, the same on every device."""

import torch
from torch import Tensor
from torch.nn import functional as F

from convsmith.calibration.pictures import Bytes, Pictures, Several

# The largest move, as a share of an image's side.
MOVE = 0.125


def varied(images: Pictures, rows: Tensor, generator: torch.Generator) -> Tensor | Several:
    """Some of the images, each moved by up to an eighth of its sides, and mirrored or not.

    Of bytes, black enters at the border, else zeros. Signals, volumes and several inputs stay as they are.
    """
    if isinstance(images, Several):
        return Several(tuple(tensor[rows.to(tensor.device)] for tensor in images.tensors), images.signature)
    pixels = images.pixels if isinstance(images, Bytes) else images
    part = pixels[rows.to(pixels.device)]
    if part.dim() == 4:
        part = flip(shift(part, MOVE, generator), generator)
    return images.normalize(part) if isinstance(images, Bytes) else part


def shift(images: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Move each image (n, c, h, w) by up to `fraction` of its sides; zeros enter at the border."""
    n, _, h, w = images.shape
    rise, run = round(fraction * h), round(fraction * w)
    if rise == run == 0:
        return images
    top = torch.randint(2 * rise + 1, (n,), generator=generator).to(images.device)
    left = torch.randint(2 * run + 1, (n,), generator=generator).to(images.device)
    # All windows are a view (n, c, 2 rise + 1, 2 run + 1, h, w), so that only the drawn ones are copied.
    windows = F.pad(images, (run, run, rise, rise)).unfold(2, h, 1).unfold(3, w, 1)
    return windows[torch.arange(n, device=images.device), :, top, left]


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image (n, c, h, w) left to right with probability one half."""
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(mirrored.to(images.device), images.flip(3), images)
