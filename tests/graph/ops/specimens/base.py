"""What specimens are built of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MAP = (4, 7, 6)  # the source of most specimens: channels, height, width
aten = torch.ops.aten


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Join(nn.Module):
    """Two branches and what joins them."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor], left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.join, self.left, self.right = join, left, right

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.left(x), self.right(x))


@dataclass(frozen=True)
class Specimen:
    """A net on an input of `shape`; `draws` of inputs show all that it sees; `bound`: its rule may say more."""

    net: nn.Module
    shape: tuple[int, ...] = MAP
    draws: int = 3
    bound: bool = False


def conv(inputs: int = 4, outputs: int = 4, kernel: Any = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, **options)


def behind(function: Callable[..., Any], draws: int = 3, bound: bool = False) -> Specimen:
    """A grouped convolution, so that elements differ in what they see, then a function."""
    return Specimen(nn.Sequential(conv(padding=1, groups=2), Call(function)), MAP, draws, bound)


def alone(function: Callable[..., Any], *shape: int, draws: int = 3, bound: bool = False) -> Specimen:
    return Specimen(Call(function), shape or MAP, draws, bound)


def joined(join: Callable[[Tensor, Tensor], Tensor], draws: int = 3, bound: bool = False) -> Specimen:
    """A grouped convolution's output, and the input itself in other channels, joined."""
    return Specimen(Join(join, conv(padding=1, groups=2), conv(kernel=1, groups=4)), MAP, draws, bound)


def own(*shape: int) -> Tensor:
    """A constant of the model's own."""
    return torch.linspace(0.5, 1.5, int(torch.tensor(shape).prod()), dtype=torch.float64).reshape(shape)
