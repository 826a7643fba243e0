"""The usual training loop for CIFAR, to compare with: Pillow images, transforms, a DataLoader, float32.

The loss and the hits of every step are looked at, as a progress bar does.
"""

from collections.abc import Iterator
from itertools import islice

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from loop import Lab

BATCH = 128


class Pictures(Dataset[tuple[Tensor, int]]):
    """Decoded images, each made a Pillow image when it is asked for, as torchvision's CIFAR10 does."""

    def __init__(self, images: Tensor, labels: Tensor, transform: transforms.Compose) -> None:
        self.images, self.labels = images.permute(0, 2, 3, 1).contiguous().numpy(), labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def loader(lab: Lab, workers: int, batch: int) -> DataLoader[tuple[Tensor, int]]:
    """Random crops and flips of the training images."""
    side = lab.data.shape[-1]
    steps = [transforms.RandomCrop(side, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    transform = transforms.Compose([*steps, transforms.Normalize(lab.data.mean, lab.data.std)])
    split = lab.data.train
    return DataLoader(Pictures(split.images, split.labels, transform), batch, shuffle=True, num_workers=workers)


def images_per_second(lab: Lab, model: nn.Module, workers: int, steps: int, batch: int = BATCH) -> float:
    """Of `steps` steps behind a fifth as many untimed ones, which start the workers."""
    model.to(lab.device, memory_format=torch.contiguous_format).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    warm = max(1, steps // 5)
    taken = stepped(lab, model, optimizer, loader(lab, workers, batch))
    for _ in islice(taken, warm):
        pass
    began = lab.clock()
    seen = sum(islice(taken, steps))
    return seen / (lab.clock() - began)


def stepped(
    lab: Lab, model: nn.Module, optimizer: torch.optim.Optimizer, batches: DataLoader[tuple[Tensor, int]]
) -> Iterator[int]:
    """Take a step with every batch; gives its number of images."""
    loss_of, total, hits = nn.CrossEntropyLoss(), 0.0, 0
    while True:
        for images, labels in batches:
            images, labels = images.to(lab.device), labels.to(lab.device)
            optimizer.zero_grad()
            logits = model(images)
            loss = loss_of(logits, labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
            hits += int((logits.argmax(1) == labels).sum())
            yield len(labels)
