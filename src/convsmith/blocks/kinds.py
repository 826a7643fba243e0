"""The kernels that a sequence is written of: what each is called, which channels it reads, and how it is made."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, prod

import torch
from torch import Tensor, nn

from convsmith.blocks.base import convolution
from convsmith.blocks.rpw import RollingPointwise
from convsmith.errors import ConvsmithError
from convsmith.kernels import ChannelShuffle, windows
from convsmith.kernels.spec import ConvSpec

KINDS = {"dw": (), "gc": ("g",), "pw": (), "gpw": ("g",), "rpw": ("g", "o"), "shuffle": ("g",)}
_TEXT = re.compile(r"([a-z]+)(?:(\d+)x(\d+))?(?:\(([^()]*)\))?")


@dataclass(frozen=True)
class Kernel:
    """DW, GC(g), PW, GPW(g), RPW(g, o) or a channel shuffle(g).

    size: the window (height, width) of a spatial kernel; None is all of the convolution's.

    >>> str(Kernel("dw", (1, 3))), str(read_kernel("rpw(4, .5)"))
    ('dw1x3', 'rpw(g=4,o=0.5)')
    """

    kind: str
    size: tuple[int, int] | None = None
    g: int = 1
    o: float = 0.0

    def __str__(self) -> str:
        parameters = ",".join(
            f"{name}={value:g}" for name, value in (("g", self.g), ("o", self.o)) if name in KINDS[self.kind]
        )
        size = "" if self.size is None else f"{self.size[0]}x{self.size[1]}"
        return f"{self.kind}{size}({parameters})" if parameters else f"{self.kind}{size}"

    @property
    def spatial(self) -> bool:
        """Whether it sees more than one pixel."""
        return self.kind in ("dw", "gc")

    @property
    def mixes(self) -> bool:
        """Whether outputs read more than one channel; such a kernel can change their number."""
        return self.kind in ("pw", "gpw", "rpw", "gc")

    def window(self, conv: ConvSpec) -> tuple[int, int]:
        """Height and width of what it sees."""
        return self.size or (conv.kernel[0], conv.kernel[1]) if self.spatial else (1, 1)

    def width(self, inputs: int) -> int:
        """How many input channels an output reads."""
        return inputs // self.g if self.mixes else 1

    def undivided(self, inputs: int, outputs: int) -> bool:
        """Whether its groups do not divide what they must."""
        return bool((inputs if self.kind == "rpw" else gcd(inputs, outputs)) % self.g)

    def reads(self, inputs: int, outputs: int) -> Tensor:
        """The input channels of each output, (outputs, width)."""
        if self.kind == "rpw":
            return windows(inputs, outputs, self.g, self.o)
        if self.kind == "shuffle":
            return torch.arange(inputs).view(self.g, -1).T.reshape(-1, 1)
        groups = self.g if self.mixes else inputs
        first = torch.arange(outputs) // (outputs // groups) * (inputs // groups)
        return first[:, None] + torch.arange(inputs // groups)  # (n, 1) + (r) -> (n, r)

    def build(self, part: ConvSpec, inputs: int, outputs: int, bias: bool) -> nn.Module:
        """The module; part: its geometry."""
        if self.kind == "shuffle":
            return ChannelShuffle(self.g)
        if self.kind == "rpw":
            return RollingPointwise(inputs, outputs, self.g, self.o, bias, part.stride[0])
        if self.spatial:
            return convolution(part, inputs, outputs, bias, self.g if self.mixes else inputs)
        height, width = part.stride
        return nn.Conv2d(inputs, outputs, 1, (height, width), groups=self.g, bias=bias)


def read_kernel(text: str) -> Kernel:
    """Read `dw`, `dw1x3`, `gpw(g=4)`, `rpw(4,0.5)`; raises ConvsmithError where it is none."""
    match = _TEXT.fullmatch(text.replace(" ", ""))
    kind = match[1] if match else ""
    if match is None or kind not in KINDS or (match[2] and kind not in ("dw", "gc")):
        raise ConvsmithError(f"seq: {text.strip()!r} is no kernel; write {', '.join(map(_usage, KINDS))}.")
    size = (int(match[2]), int(match[3])) if match[2] else None
    parameters = [part.rpartition("=") for part in match[4].split(",")] if match[4] else []
    values = {key or name: value for name, (key, _, value) in zip(KINDS[kind], parameters, strict=False)}
    try:
        kernel = Kernel(kind, size, int(values.get("g", 1)), float(values.get("o", 0)))
    except ValueError:
        raise _mistake(text, kind) from None
    if (
        len(parameters) != len(KINDS[kind])
        or values.keys() != set(KINDS[kind])
        or kernel.g < 1
        or not 0 <= kernel.o < 1
    ):
        raise _mistake(text, kind)
    return kernel


def _mistake(text: str, kind: str) -> ConvsmithError:
    return ConvsmithError(f"seq: {text.strip()!r} must be {_usage(kind)}, with g of at least 1 and 0 <= o < 1.")


def _usage(kind: str) -> str:
    return f"{kind}({','.join(f'{name}=..' for name in KINDS[kind])})" if KINDS[kind] else kind


def channels(kernels: Sequence[Kernel], conv: ConvSpec) -> list[tuple[int, int]]:
    """Inputs and outputs of each kernel: the last that mixes widens, the first narrows, which is cheapest."""
    mixing = [place for place, kernel in enumerate(kernels) if kernel.mixes]
    wider = conv.out_channels >= conv.in_channels
    turn = (mixing or [0])[-1 if wider else 0]
    last = (conv.in_channels, conv.out_channels)
    return [last if place == turn else (last[place > turn],) * 2 for place in range(len(kernels))]


def parts(kernels: Sequence[Kernel], conv: ConvSpec) -> list[ConvSpec]:
    """Each kernel's geometry. Along each axis the last that moves there strides, and all of them share the padding.

    Where none is spatial the first that mixes strides.
    """
    made = [replace(conv, kernel=k.window(conv), stride=(1, 1), padding=(0, 0)) for k in kernels]
    spatial = [place for place, kernel in enumerate(kernels) if kernel.spatial]
    if kernels and not spatial:
        first = next(place for place, kernel in enumerate(kernels) if kernel.mixes)
        made[first] = replace(made[first], stride=conv.stride)
    for axis in (0, 1):
        moving = [place for place in spatial if made[place].kernel[axis] > 1] or spatial[-1:]
        for place in moving:
            alone = len(moving) == 1 or not conv.padding[axis]
            padding = conv.padding[axis] if alone else conv.dilation[axis] * (made[place].kernel[axis] // 2)
            stride = conv.stride[axis] if place == moving[-1] else 1
            made[place] = _along(made[place], axis, stride, padding)
    return made


def _along(part: ConvSpec, axis: int, stride: int, padding: int) -> ConvSpec:
    strides, paddings = [*part.stride], [*part.padding]
    strides[axis], paddings[axis] = stride, padding
    return replace(part, stride=(strides[0], strides[1]), padding=(paddings[0], paddings[1]))


def uncovered(kernels: Sequence[Kernel], conv: ConvSpec) -> str | None:
    """Why spatial kernels do not add up to the convolution's window and padding, or None where they do."""
    sizes = [k.window(conv) for k in kernels if k.spatial]
    seen = tuple(1 + sum(size[axis] - 1 for size in sizes) for axis in (0, 1))
    if seen != conv.kernel or not prod(map(prod, sizes)):
        return f"its kernels see {seen[0]}x{seen[1]}, not {conv.kernel[0]}x{conv.kernel[1]}"
    for axis in (0, 1):
        moving = [size[axis] for size in sizes if size[axis] > 1]
        same = 2 * conv.padding[axis] == conv.dilation[axis] * (conv.kernel[axis] - 1)
        if len(moving) > 1 and conv.padding[axis] and not (same and all(size % 2 for size in moving)):
            return f"a padding of {conv.padding[axis]} cannot be shared by kernels of {moving}"
    return None
