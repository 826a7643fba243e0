"""All sequences of up to four kernels that see what a convolution sees and need every kernel for it, by their cost.

Quality and Compact are those of `decompose`. Channels and pixels are proved apart: which kernels mix all channels is in
`mixing`, which windows add up is found here. Every order of both is a sequence, for neither moves the other's reach.
Several convolutions in a row have one sequence for all, or one that comes again in each of their places.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations_with_replacement
from math import prod

from convsmith.blocks import LONGEST, Block, DwPw, DwRpw, Kernel, KernelSequence, PwDw, channels, parts
from convsmith.errors import PlanError
from convsmith.kernels.spec import ConvSpec
from convsmith.planning.search.mixing import Mixing, mixings, repeated
from convsmith.reach.windows import Taps, Windows

Size = tuple[int, ...]
Shape = tuple[tuple[int, int], ...]  # sizes of spatial kernels, in order
# An order of execution: at each place the mixing kernel to take, or none; and the spatial kernel to take, or none.
Order = tuple[tuple[int | None, int | None], ...]

NAMED: dict[tuple[Kernel, ...], Block] = {
    (Kernel("dw"), Kernel("pw")): DwPw(),
    (Kernel("pw"), Kernel("dw")): PwDw(),
}


@dataclass(frozen=True)
class Found:
    """A sequence that sees what the convolution sees and needs each of its kernels.

    Attributes:
        kernels: Its kernels, in order of execution.
        conv: What it replaces; for several in a row, the one that sees what they see.
        params: Its parameters.
        macs: Its multiply-accumulates on the map that was asked for.
        cost: Its MACs as a share of those of what it replaces.
        latency: Median seconds for one image, where it was measured.
        copies: Where more than 1, it stands in each of so many places of `conv`, and only all together see as much.
            Counts are then of all.
    """

    kernels: tuple[Kernel, ...]
    conv: ConvSpec
    params: int
    macs: int
    cost: float
    latency: float | None = None
    copies: int = 1

    @property
    def block(self) -> Block:
        """The block to plan or build; the separable forms and the rolling one under their own names."""
        match self.kernels:
            case (Kernel("dw", None), Kernel("rpw", g=g, o=o)):
                return DwRpw(g, o)
        return NAMED.get(self.kernels) or KernelSequence(self.kernels)

    @property
    def label(self) -> str:
        """The block, and in how many places it stands."""
        return f"{self.copies} x {self.block}" if self.copies > 1 else str(self.block)

    @property
    def form(self) -> str:
        """Its kinds of kernels in order, without groups and overlaps."""
        kinds = " + ".join(_KINDS[kernel.kind] + _size(kernel) for kernel in self.kernels)
        return f"{self.copies} x ({kinds})" if self.copies > 1 else kinds


_KINDS = {"dw": "DW", "gc": "GC", "pw": "PW", "gpw": "GPW", "rpw": "RPW", "shuffle": "CS"}


def _size(kernel: Kernel) -> str:
    return "" if kernel.size is None else f" {kernel.size[0]}x{kernel.size[1]}"


@lru_cache(maxsize=128)
def find_sequences(conv: ConvSpec, size: Size, convolutions: int = 1) -> tuple[Found, ...]:
    """All that are cheaper than the convolution on a map of `size`, cheapest first, then fewest parameters and kernels.

    convolutions: how many like `conv` in a row one sequence replaces, or one in each place.
    Raises ConvsmithError where none can: see `refused`.
    """
    if reason := refused(conv, size, convolutions):
        raise PlanError(f"No block is searched for this convolution: {reason}.")
    macs = conv.macs(_out(conv, size))
    mixed = mixings(conv.in_channels, conv.out_channels)
    sequences = list(_sequences(merged(conv, convolutions), size, convolutions * macs, mixed))
    if convolutions > 1:
        alike = _sequences(conv, size, macs, repeated(conv.in_channels, convolutions))
        sequences += [
            replace(f, params=convolutions * f.params, macs=convolutions * f.macs, copies=convolutions) for f in alike
        ]
    return tuple(sorted(sequences, key=lambda f: (f.macs, f.params, len(f.kernels))))


def refused(conv: ConvSpec, size: Size, convolutions: int = 1) -> str | None:
    """Why no sequence is searched for, or None where one is."""
    if reason := KernelSequence((Kernel("pw"),)).unsuited(conv):
        return reason
    if conv.padding_mode != "zeros":
        return f"what {conv.padding_mode} padding lets it see is not known"
    if min(_out(conv, size)) < 1:
        return f"its kernel does not fit a map of {size[0]}x{size[1]}"
    if convolutions == 1:
        return None
    if convolutions < 1:
        return f"at least one convolution is to be replaced, got {convolutions}"
    if conv.in_channels != conv.out_channels or conv.stride != (1, 1) or not all(k % 2 for k in conv.kernel):
        return "only convolutions of equal width, odd kernel and stride 1 are taken together"
    if any(2 * p not in (0, d * (k - 1)) for p, d, k in zip(conv.padding, conv.dilation, conv.kernel, strict=True)):
        return "only convolutions that pad by half their kernel, or not at all, are taken together"
    return None


def merged(conv: ConvSpec, convolutions: int) -> ConvSpec:
    """The one convolution that sees what so many in a row see."""
    kernel = tuple(convolutions * (k - 1) + 1 for k in conv.kernel)
    padding = tuple(convolutions * p for p in conv.padding)
    return ConvSpec(
        conv.in_channels, conv.out_channels, kernel, conv.stride, padding, conv.dilation,
        conv.groups, conv.bias, conv.padding_mode,
    )  # fmt: skip


def cheapest_by_form(found: Sequence[Found]) -> list[Found]:
    """The first of each form."""
    first: dict[str, Found] = {}
    for sequence in found:
        first.setdefault(sequence.form, sequence)
    return list(first.values())


@dataclass(frozen=True)
class _Step:
    """A kernel of an order: what it mixes, what it sees, its taps, and the pixels it answers."""

    mix: int | None
    part: int | None
    taps: int
    pixels: int


def _sequences(conv: ConvSpec, size: Size, most: int, mixed: Sequence[Mixing]) -> Iterator[Found]:
    shapes = [shape for shape in _shapes(conv) if _sees_as_much(shape, conv, size)]
    ways: dict[tuple[bool, ...], list[tuple[Shape, list[_Step]]]] = {}
    bias = conv.out_channels if conv.bias else 0
    for mixing in mixed:
        can = tuple(kernel.kind in ("pw", "gpw") for kernel in mixing.kernels)
        if can not in ways:
            ways[can] = [(s, _steps(order, s, conv, size)) for s in shapes for order in _orders(can, len(s))]
        sizes = _sizes(mixing.kernels, conv)
        for shape, steps in ways[can]:
            both = {step.mix for step in steps if step.part is not None}
            # a kernel that the channels could do without is needed where pixels are seen by it
            if not all(needed or place in both for place, needed in enumerate(mixing.needed)):
                continue
            params, macs = _cost(steps, *sizes)
            if macs < most:
                kernels = tuple(_kernel(mixing.kernels, shape, conv, step) for step in steps)
                yield Found(kernels, conv, params + bias, macs, macs / most)


def _kernel(mixing: Sequence[Kernel], shape: Shape, conv: ConvSpec, step: _Step) -> Kernel:
    if step.part is None:
        assert step.mix is not None
        return mixing[step.mix]
    size = None if shape[step.part] == conv.kernel else shape[step.part]
    return Kernel("dw", size) if step.mix is None else Kernel("gc", size, mixing[step.mix].g)


def _steps(order: Order, shape: Shape, conv: ConvSpec, size: Size) -> list[_Step]:
    steps = []
    geometry = parts([Kernel("pw") if part is None else Kernel("dw", shape[part]) for _, part in order], conv)
    for (mix, part), own in zip(order, geometry, strict=True):
        size = _out(own, size)
        steps.append(_Step(mix, part, prod(own.kernel), prod(size)))
    return steps


def _sizes(mixing: Sequence[Kernel], conv: ConvSpec) -> tuple[list[int], list[int]]:
    """Weights of each mixing kernel at one tap, and the channels before each and behind the last."""
    widths = channels(mixing, conv)
    pairs = zip(mixing, widths, strict=True)
    weights = [0 if k.kind == "shuffle" else outputs * k.width(inputs) for k, (inputs, outputs) in pairs]
    return weights, [*(inputs for inputs, _ in widths), conv.out_channels]


def _cost(steps: Sequence[_Step], weights: Sequence[int], before: Sequence[int]) -> tuple[int, int]:
    """Parameters without the bias, and multiply-accumulates."""
    params = macs = done = 0
    for step in steps:
        weight = (before[done] if step.mix is None else weights[step.mix]) * step.taps
        params, macs = params + weight, macs + weight * step.pixels
        done += step.mix is not None
    return params, macs


@lru_cache(maxsize=64)
def _orders(can: tuple[bool, ...], spatial: int) -> tuple[Order, ...]:
    """All ways to go through mixing and spatial kernels, both in order; a mixing kernel that `can` may take both on."""

    def rest(mix: int, part: int) -> Iterator[Order]:
        if mix == len(can) and part == spatial:
            yield ()
        if mix < len(can):
            yield from (((mix, None), *more) for more in rest(mix + 1, part))
        if part < spatial:
            yield from (((None, part), *more) for more in rest(mix, part + 1))
        if mix < len(can) and part < spatial and can[mix]:
            yield from (((mix, part), *more) for more in rest(mix + 1, part + 1))

    return tuple(order for order in rest(0, 0) if len(order) <= LONGEST)


def _shapes(conv: ConvSpec) -> Iterator[Shape]:
    """The kernel whole, 1 x kw then kh x 1, and where it is odd and square the smaller ones that add up to it.

    None at all for 1 x 1.
    """
    height, width = conv.kernel
    yield ((height, width),) if height * width > 1 else ()
    if min(height, width) > 1:
        yield ((1, width), (height, 1))
    if (
        height == width
        and height % 2
        and all(2 * p in (0, d * (height - 1)) for p, d in zip(conv.padding, conv.dilation, strict=True))
    ):
        for count in (2, 3):
            for sides in combinations_with_replacement(range(3, height, 2), count):
                if sum(side - 1 for side in sides) == height - 1:
                    yield tuple((side, side) for side in sides)


def _sees_as_much(shape: Shape, conv: ConvSpec, size: Size) -> bool:
    """Whether the kernels see the convolution's window, and less of it, or another map, without any one of them."""
    if not shape:
        return True
    kernels = [Kernel("dw", each) for each in shape]
    geometry = parts(kernels, conv)
    whole = _window([conv], size)
    without = (_window(geometry[:i] + geometry[i + 1 :], size) for i in range(len(shape)))
    return _window(geometry, size) == whole and all(
        found[1] != whole[1] or prod(found[0]) < prod(whole[0]) for found in without
    )


def _window(geometry: Sequence[ConvSpec], size: Size) -> tuple[Size, Size]:
    """The window seen and the map that is left."""
    axes = [Windows.identity(side) for side in size]
    for part in geometry:
        outs = _out(part, (axes[0].positions, axes[1].positions))
        if min(outs) < 1:
            return (0, 0), outs
        for axis, out in enumerate(outs):
            taps = Taps.slide(
                axes[axis].positions, part.kernel[axis], part.stride[axis], part.padding[axis], part.dilation[axis], out
            )
            axes[axis] = axes[axis].select(taps)
    row, column = axes
    return (_hull(row), _hull(column)), (row.positions, column.positions)


def _hull(windows: Windows) -> int:
    return int(max(windows.high[0] - windows.low[0])) + 1


def _out(part: ConvSpec, size: Size) -> Size:
    height, width = (
        (side + 2 * p - d * (k - 1) - 1) // s + 1
        for side, k, s, p, d in zip(size, part.kernel, part.stride, part.padding, part.dilation, strict=True)
    )
    return height, width
