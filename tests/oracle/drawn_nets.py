"""Random nets of one, two or three dimensions, drawn by seed: any op on an earlier tensor, or on several."""

from collections.abc import Callable
from math import prod
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convsmith.testing.oracles import transparent

LARGEST, WIDEST = 4000, 24  # numbers and channels of one tensor


class Call(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *given: Tensor) -> Any:
        return self.function(*given)


class Gate(nn.Module):
    """x g(x), with g held at what `held` says while a judge asks what the rest sees."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate, self.held, self.seen = gate, False, None

    def forward(self, x: Tensor) -> Tensor:
        if not self.held or self.seen is None:
            self.seen = self.gate(x)
        factor = self.seen.detach()[:1] if self.held else self.seen
        return x * factor


class Drawn(nn.Module):
    """Steps one after another, each on earlier tensors; the last one's answer, or with `every` those of all."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.steps, self.every = shape, nn.ModuleList(), False
        self.reads: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Any:
        made = [x]
        for step, reads in zip(self.steps, self.reads, strict=True):
            made.append(step(*(made[i] for i in reads)))
        return tuple(made[1:]) if self.every else made[-1]

    def hold(self, held: bool) -> None:
        """Hold all gates at what they last were, or let go of them."""
        for module in self.modules():
            if isinstance(module, Gate):
                module.held = held


Build = Callable[[Random, Tensor], nn.Module]


def _of(name: str, x: Tensor, *args: Any, **options: Any) -> nn.Module:
    """A module of torch's for maps of as many dimensions as x has."""
    module: nn.Module = getattr(nn, f"{name}{x.ndim - 2}d")(*args, **options)
    return module


def _each(random: Random, x: Tensor, *values: int) -> tuple[int, ...]:
    return tuple(random.choice(values) for _ in x.shape[2:])


def _divisor(random: Random, number: int) -> int:
    return random.choice([d for d in range(1, number + 1) if number % d == 0])


def conv(random: Random, x: Tensor) -> nn.Module:
    channels = x.shape[1]
    groups = _divisor(random, channels)
    out = groups * random.randint(1, max(1, 8 // groups))
    kernel, dilation = _each(random, x, 1, 2, 3, 3, 4), random.choice((1, 1, 2))
    if random.random() < 0.2:
        return _of("Conv", x, channels, out, kernel, padding=random.choice(("same", "valid")), dilation=dilation)
    mode = random.choice(("zeros", "zeros", "zeros", "reflect", "replicate", "circular"))
    padding, stride = _each(random, x, 0, 1, 1, 2), _each(random, x, 1, 1, 2, 3)
    bias = random.random() < 0.5
    return _of("Conv", x, channels, out, kernel, stride, padding, dilation, groups, bias, mode)


def depthwise(random: Random, x: Tensor) -> nn.Module:
    c = x.shape[1]
    return _of("Conv", x, c, c * random.choice((1, 1, 2)), 3, random.choice((1, 2)), 1, groups=c)


def pointwise(random: Random, x: Tensor) -> nn.Module:
    return _of("Conv", x, x.shape[1], random.randint(1, 8), 1)


def transposed(random: Random, x: Tensor) -> nn.Module:
    groups, stride = _divisor(random, x.shape[1]), random.randint(1, 3)
    extra = random.randrange(stride)
    out = groups * random.randint(1, max(1, 6 // groups))
    kernel, padding = random.randint(1, 4), random.choice((0, 0, 1))
    return _of(
        "ConvTranspose", x, x.shape[1], out, kernel, stride, padding, extra, groups, dilation=random.choice((1, 1, 2))
    )


def max_pool(random: Random, x: Tensor) -> nn.Module:
    kernel = random.choice((2, 3))
    dilation, ceil = random.choice((1, 1, 2)), random.random() < 0.5
    return _of("MaxPool", x, kernel, random.choice((1, 2, 3)), random.randint(0, kernel // 2), dilation, False, ceil)


def average_pool(random: Random, x: Tensor) -> nn.Module:
    kernel, ceil, counted = random.choice((2, 3)), random.random() < 0.5, random.random() < 0.5
    return _of("AvgPool", x, kernel, random.choice((1, 2, 3)), random.randint(0, kernel // 2), ceil, counted)


def lp_pool(random: Random, x: Tensor) -> nn.Module:
    return _of("LPPool", x, 2, random.choice((2, 3)), random.choice((1, 2)), random.random() < 0.5)


def adaptive(random: Random, x: Tensor) -> nn.Module:
    sizes = tuple(random.randint(1, side + 1) for side in x.shape[2:])
    return _of(random.choice(("AdaptiveMaxPool", "AdaptiveAvgPool")), x, sizes)


def norm(random: Random, x: Tensor) -> nn.Module:
    c, places = x.shape[1], prod(x.shape[2:])
    groups = _divisor(random, c)
    kinds: list[Callable[[], nn.Module]] = [lambda: _of("BatchNorm", x, c)]
    if places > 3:  # of so few numbers little is left once mean and scale are taken out
        kinds += [lambda: nn.GroupNorm(groups, c), lambda: _of("InstanceNorm", x, c, affine=True)]
    if c > 3:
        kinds += [
            lambda: nn.Sequential(Call(lambda y: y.movedim(1, -1)), nn.LayerNorm(c), Call(lambda y: y.movedim(-1, 1)))
        ]
    return random.choice(kinds)()


ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Tanh, nn.Sigmoid, nn.Hardswish, nn.Mish)


def activation(random: Random, x: Tensor) -> nn.Module:
    return random.choice(ACTIVATIONS)()


def channels_moved(random: Random, x: Tensor) -> nn.Module:
    c = x.shape[1]
    groups, by, step, cut = _divisor(random, c), random.randint(-2, 2), random.randint(1, 2), random.randrange(c)
    order = random.sample(range(c), c)
    return Call(random.choice((
        lambda y: y.unflatten(1, (groups, c // groups)).transpose(1, 2).flatten(1, 2),
        lambda y: y[:, cut:], lambda y: y[:, cut::step], lambda y: torch.cat(y.chunk(2, 1)[::-1], 1),
        lambda y: torch.cat(y.split([cut, c - cut], 1)[::-1], 1), lambda y: y[:, order], lambda y: y.flip(1),
        lambda y: y.roll(by, 1), lambda y: y.repeat_interleave(2, 1), lambda y: torch.cat([y, y], 1),
    )))  # fmt: skip


def maps_moved(random: Random, x: Tensor) -> nn.Module:
    dim = random.randrange(2, x.ndim)
    size = x.shape[dim]
    start, by, step = random.randrange(size), random.randint(-2, 2), random.randint(1, 2)
    pads = [random.randint(0, 1) for _ in range(2 * (x.ndim - 2))]
    mode, value = random.choice(("constant", "reflect", "replicate", "circular")), random.choice((0.0, 1.0))
    options = {"value": value} if mode == "constant" else {}
    return Call(random.choice((
        lambda y: y.narrow(dim, start, size - start), lambda y: y.narrow(dim, start, size - start).flip(dim),
        lambda y: y[..., ::step], lambda y: y.roll(by, dim), lambda y: y.transpose(2, -1),
        lambda y: F.pad(y, pads, mode, **options),
    )))  # fmt: skip


def resized(random: Random, x: Tensor) -> nn.Module:
    linear = ("linear", "bilinear", "trilinear")[x.ndim - 3]
    mode, corners = random.choice(("nearest", "nearest-exact", linear, linear, "area")), random.random() < 0.5
    options: dict[str, Any] = {"mode": mode} | ({"align_corners": corners} if mode == linear else {})
    size = tuple(random.randint(1, side + 3) for side in x.shape[2:])
    by = random.choice(({"size": size}, {"scale_factor": random.choice((0.5, 1.5, 2.0))}))
    return Call(lambda y: F.interpolate(y, **by, **options))


def pixels(random: Random, x: Tensor) -> nn.Module:
    if x.ndim != 4:
        raise ValueError("pixels are of two dimensions")
    return random.choice((nn.PixelShuffle(2), nn.PixelUnshuffle(2)))


def unfolded(random: Random, x: Tensor) -> nn.Module:
    size, step = random.choice((2, 3)), random.choice((1, 2))
    if x.ndim == 4 and random.random() < 0.5:
        return Call(lambda y: F.unfold(y, size, stride=step, padding=1).unsqueeze(-1))
    return Call(lambda y: y.unfold(2, size, step).movedim(-1, 2).flatten(1, 2))


def mean_added(random: Random, x: Tensor) -> nn.Module:
    dim = random.randrange(2, x.ndim)
    return Call(lambda y: y + y.mean(dim, keepdim=True))


def gate(random: Random, x: Tensor) -> nn.Module:
    c, pool = x.shape[1], _of("AdaptiveAvgPool", x, 1)
    like = (c, *(1 for _ in x.shape[2:]))
    squeeze = nn.Sequential(pool, _of("Conv", x, c, 2, 1), nn.ReLU(), _of("Conv", x, 2, c, 1), nn.Sigmoid())
    linear = nn.Sequential(pool, nn.Flatten(), nn.Linear(c, c), nn.Sigmoid(), nn.Unflatten(1, like))
    eca = nn.Sequential(pool, Call(lambda y: y.flatten(2).transpose(1, 2)), nn.Conv1d(1, 1, 3, padding=1, bias=False),
                        nn.Sigmoid(), Call(lambda y: y.transpose(1, 2).reshape(-1, *like)))  # fmt: skip
    return Gate(random.choice((squeeze, linear, eca)))


def unit(random: Random, x: Tensor) -> nn.Module:
    c, wide = x.shape[1], 2 * x.shape[1]
    inside = random.choice((
        nn.Sequential(_of("Conv", x, c, c, 3, padding=1), _of("BatchNorm", x, c), nn.ReLU(),
                      _of("Conv", x, c, c, 3, padding=1)),
        nn.Sequential(_of("Conv", x, c, wide, 1), nn.ReLU(), _of("Conv", x, wide, wide, 3, padding=1, groups=wide),
                      nn.SiLU(), _of("Conv", x, wide, c, 1)),
    ))  # fmt: skip
    return Residual(inside)


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inside(x)


def last_axis(random: Random, x: Tensor) -> nn.Module:
    return nn.Linear(x.shape[-1], random.randint(1, 5))


ONE: tuple[Build, ...] = (
    conv, conv, conv, depthwise, pointwise, transposed, max_pool, average_pool, lp_pool, adaptive, norm, activation,
    activation, channels_moved, channels_moved, maps_moved, maps_moved, resized, pixels, unfolded, mean_added, gate,
    unit, last_axis,
)  # fmt: skip
# On two tensors of one shape, or on those that differ in channels.
ALIKE: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    torch.add, torch.mul, torch.maximum, lambda a, b: torch.cat([a, b], 1), lambda a, b: torch.stack([a, b]).sum(0),
    lambda a, b: torch.stack([a, b], 2).flatten(1, 2), lambda a, b: a + b.mean(2, keepdim=True),
)  # fmt: skip


def head(random: Random, x: Tensor) -> nn.Module:
    if random.random() < 0.5:
        return nn.Sequential(_of("AdaptiveAvgPool", x, 1), nn.Flatten(), nn.Linear(x.shape[1], 3))
    return nn.Sequential(nn.Flatten(), nn.Linear(prod(x.shape[1:]), 3))


def drawn(seed: int, dimensions: int | None = None) -> Drawn:
    """A net of 3 to 12 steps on positive weights in float64, its answers kept to about 1."""
    random = Random(seed)
    torch.manual_seed(seed)
    dims = dimensions or random.choice((1, 2, 2, 2, 3))
    shape = (
        random.choice((1, 2, 3, 4, 4, 6)),
        *(random.randint(*((5, 20), (4, 9), (3, 5))[dims - 1]) for _ in range(dims)),
    )
    net = Drawn(shape)
    made = [torch.rand(2, *shape, dtype=torch.float64) + 0.05]
    wanted = random.randint(3, 12)
    for _ in range(20 * wanted):
        if len(made) > wanted:
            break
        _add_step(net, made, random)
    if random.random() < 0.3 and prod(made[-1].shape[1:]) < LARGEST:
        _try(net, made, transparent(head(random, made[-1])), (len(made) - 1,))
    return net


def _add_step(net: Drawn, made: list[Tensor], random: Random) -> None:
    last = len(made) - 1
    other = random.randrange(last) if last else 0
    pair = made[other].shape == made[last].shape and random.random() < 0.5
    gated = any(isinstance(module, Gate) for module in net.modules())
    ways = [way for way in ONE if not (gated and way is gate)]  # of one a judge can say whether it was held
    try:
        step = Call(random.choice(ALIKE)) if pair and last else transparent(random.choice(ways)(random, made[last]))
    except (RuntimeError, ValueError):  # of such a module there is none
        return
    _try(net, made, step, (last, other) if pair and last else (last,))


def _try(net: Drawn, made: list[Tensor], step: nn.Module, reads: tuple[int, ...]) -> None:
    """Add a step where it can be computed, is of a size to judge, and has not lost all that it was given."""
    try:
        with torch.no_grad():
            out = step(*(made[i] for i in reads))
    except (RuntimeError, ValueError, ZeroDivisionError):
        return
    numbers = prod(out.shape[1:])
    if not 0 < numbers <= LARGEST or out.shape[1] > WIDEST or out.ndim > 5 or not out.isfinite().all() or not out.any():
        return
    most = out.abs().max().item()
    if not 0.05 < most < 4:
        step, out = Scaled(step, 1 / most), out / most
    net.steps.append(step)
    net.reads.append(reads)
    made.append(out)


class Scaled(nn.Module):
    """A step whose answer is kept to about 1, where activations still tell numbers apart."""

    def __init__(self, step: nn.Module, factor: float) -> None:
        super().__init__()
        self.step, self.factor = step, factor

    def forward(self, *given: Tensor) -> Tensor:
        out: Tensor = self.step(*given) * self.factor
        return out
