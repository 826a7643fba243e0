"""A split kept decoded: one uint8 tensor, batched, augmented and normalized on the device."""

from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from convsmith.calibration.variations import flip, shift
from convsmith.data.augment import cutout
from convsmith.data.records import Batches, Normalize, Pass, Shape, Split, batch_rows, epoch_seed


@dataclass(frozen=True, eq=False)
class TensorSplit(Split):
    """Images (n, c, h, w) as uint8, labels (n,) as int64, the number of classes, and the normalization.

    >>> split = TensorSplit(torch.zeros(5, 1, 2, 2, dtype=torch.uint8), torch.arange(5), 5, Normalize((0.0,), (1.0,)))
    >>> [labels.tolist() for _, labels in split.batches(2)]
    [[0, 1], [2, 3], [4]]
    >>> [len(labels) for _, labels in split.shuffled(2, seed=0, epoch=0)]
    [2, 2]
    """

    images: Tensor
    labels: Tensor
    classes: int
    normalize: Normalize
    shape: Shape = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.images.shape[1:]))

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int, *, share: tuple[int, int] = (0, 1), device: torch.device | str = "cpu") -> Batches:
        """Every image once, in the stored order; the last batch may be short."""
        pairs = zip(torch.split(self.images, size), torch.split(self.labels, size), strict=True)
        for images, labels in islice(pairs, share[0], None, share[1]):
            yield self.normalize(images.to(device)), labels.to(device)

    def drawn(self, count: int, *, seed: int) -> Tensor:
        """The first `count` images of the plain pass 0, as uint8 (n, c, h, w)."""
        generator = torch.Generator().manual_seed(epoch_seed(seed, 0))
        return self.images[torch.randperm(len(self), generator=generator)[:count]]

    def run(self, each: Pass) -> Batches:
        """One training pass, augmented on the device."""
        generator, augment, share, device = each.generator(), each.augment, each.share, each.device
        all_images, all_labels = self.images.to(device), self.labels.to(device)  # one copy a pass, none on the CPU
        for rows in batch_rows(torch.randperm(len(self), generator=generator), each.size):
            rows = rows.to(device)
            images = shift(all_images[rows], augment.shift, generator)
            if augment.flip:
                images = flip(images, generator)
            if augment.cutout:
                images = cutout(images, augment.cutout, generator)
            mine = slice(share[0], None, share[1])
            yield self.normalize(images[mine]), all_labels[rows[mine]]
