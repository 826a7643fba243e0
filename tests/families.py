"""Small nets of the kinds that widths are cut in: every way that channels are tied together."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int = 3, **options: object) -> nn.Sequential:
    """A convolution that keeps the map, its BatchNorm and ReLU."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **options)  # type: ignore[arg-type]
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


class Net(nn.Module):
    """A body between a stem of 16 channels and a pooled head, as most nets have it."""

    def __init__(self, body: nn.Module, outputs: int = 16) -> None:
        super().__init__()
        self.stem, self.body, self.head = conv(3, 16), body, nn.Linear(outputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(self.stem(x)).mean((2, 3)))
        return out


class Residual(nn.Module):
    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.inside(x)
        return out


class Gate(nn.Module):
    """Squeeze-and-excitation (Hu et al., 2018)."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Linear(channels, inner), nn.Linear(inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.expand(self.reduce(x.mean((2, 3))).relu()).sigmoid()[:, :, None, None]


class Neighbours(nn.Module):
    """ECA (Wang et al., 2020): a convolution slides over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.slide = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.slide(x.mean((2, 3)).unsqueeze(1)).transpose(1, 2).unsqueeze(-1).sigmoid()


class Dense(nn.Module):
    """Each layer reads all before it (Huang et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(16, 8), conv(24, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, self.first(x)], 1)
        return torch.cat([x, self.second(x)], 1)


class Shuffled(nn.Module):
    """ShuffleNetV2's unit (Ma et al., 2018): half of the channels pass, then two groups are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Sequential(conv(8, 8, 1), conv(8, 8, groups=8), conv(8, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        x = torch.cat([first, self.inside(second)], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class CrossStage(nn.Module):
    """C2f: halves of one convolution, more behind the second, all read by another."""

    def __init__(self, baked: bool = False) -> None:
        super().__init__()
        self.half, self.baked = 8, baked
        self.enter, self.leave = conv(16, 16, 1), conv(24, 16, 1)
        self.inside = Residual(nn.Sequential(conv(8, 8), conv(8, 8)))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.enter(x).split(self.half, 1) if self.baked else self.enter(x).chunk(2, 1))
        out: Tensor = self.leave(torch.cat([*parts, self.inside(parts[-1])], 1))
        return out


class Scales(nn.Module):
    """Res2Net's unit (Gao et al., 2019): parts of one convolution, each behind the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 8
        self.enter, self.leave = conv(16, 24, 1), conv(24, 16, 1)
        self.inside = nn.ModuleList([conv(8, 8), conv(8, 8)])

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(self.enter(x), self.width, 1)
        first = self.inside[0](parts[0])
        second = self.inside[1](first + parts[1])
        return x + self.leave(torch.cat([first, second, parts[2]], 1))


class Selective(nn.Module):
    """Selective kernels (Li et al., 2019): two maps, weighed by a softmax across them."""

    def __init__(self) -> None:
        super().__init__()
        self.paths = nn.ModuleList([conv(16, 16), conv(16, 16, 5)])
        self.reduce, self.choose = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.stack([path(x) for path in self.paths], 1)
        attention = self.choose(self.reduce(maps.sum(1).mean((2, 3), keepdim=True)).relu())
        n, c = maps.shape[0], maps.shape[2]
        return (maps * attention.view(n, 2, c, 1, 1).softmax(1)).sum(1)


class Pixels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(16, 32, 3, padding=1), conv(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.narrow(F.pixel_shuffle(self.wide(x), 2))
        return out


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both, self.last = nn.Conv2d(16, 24, 1), nn.Conv2d(12, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(F.glu(self.both(x), 1))
        return out


class Scaled(nn.Module):
    """ConvNeXt's unit (Liu et al., 2022): a LayerNorm over channels, and a scale for each."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(16, 16, 7, padding=3, groups=16), nn.LayerNorm(16)
        self.wide, self.narrow = nn.Linear(16, 64), nn.Linear(64, 16)
        self.scale = nn.Parameter(torch.full((16,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.narrow(F.gelu(self.wide(y))) * self.scale).permute(0, 3, 1, 2)


def vgg() -> nn.Module:
    """A flattened map goes into linear layers."""
    flat = [nn.Flatten(), nn.Linear(16 * 4, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 10)]
    return nn.Sequential(conv(3, 16), nn.MaxPool2d(2), conv(16, 16), nn.MaxPool2d(2), *flat)


def inverted() -> nn.Module:
    wide = [conv(16, 48, 1), conv(48, 48, groups=48), Gate(48, 8), nn.Conv2d(48, 16, 1), nn.BatchNorm2d(16)]
    return Net(Residual(nn.Sequential(*wide)))


# Each takes maps of 8 x 8 pixels.
FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "vgg": vgg,
    "residual": lambda: Net(Residual(nn.Sequential(conv(16, 24), conv(24, 16)))),
    "inverted": inverted,
    "dense": lambda: Net(Dense(), 32),
    "shuffle": lambda: Net(nn.Sequential(Shuffled(), Shuffled())),
    "cross stage": lambda: Net(CrossStage()),
    "cross stage, sizes kept": lambda: Net(CrossStage(baked=True)),
    "scales": lambda: Net(Scales()),
    "selective": lambda: Net(Selective()),
    "groups, few": lambda: Net(nn.Sequential(conv(16, 32, 1), conv(32, 24, groups=4), conv(24, 16, 1))),
    "groups, many": lambda: Net(nn.Sequential(conv(16, 32, 1), conv(32, 32, groups=16), conv(32, 16, 1))),
    "multiplied depthwise": lambda: Net(nn.Sequential(conv(16, 32, groups=16), conv(32, 16, 1))),
    "group norm": lambda: Net(nn.Sequential(nn.Conv2d(16, 24, 3), nn.GroupNorm(6, 24), nn.PReLU(24), conv(24, 16))),
    "pixels": lambda: Net(Pixels()),
    "gated": lambda: Net(Gated()),
    "scaled": lambda: Net(Scaled()),
    "neighbours": lambda: Net(Residual(nn.Sequential(conv(16, 24), conv(24, 16), Neighbours()))),
    "transposed": lambda: Net(nn.Sequential(nn.ConvTranspose2d(16, 24, 2, 2), nn.ReLU(), conv(24, 16))),
}  # fmt: skip
