"""Rolling pointwise convolution on a CPU as products of neighbouring windows, with its adjoint.

In order of their starts the windows make a band that goes round the channels. The outputs of some neighbouring windows
read one run of channels. So a view of the maps times a small weight, zero outside the windows, gives them all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import inf

import torch
from torch import Tensor
from torch.nn import functional as F

from convsmith.kernels.rolling import Rolling

# Costs in multiply-accumulates, by which a cut is chosen: what a product takes besides is as if it had that many rows
# more, in the types and the format that torch's products like best and in others; an output's copies into the band's
# order and back; and the calls of all. tests/kernels/test_rpw.py holds the choice against what bench/rpw.py measured.
IDLE_ROWS, IDLE_ROWS_ELSE = 4, 20
COPIES_OF_PLANES, COPIES_OF_PIXELS = 8, 32
CALLS = 2**20


@dataclass(frozen=True)
class Band:
    """The windows in order of their starts, cut into blocks.

    Unit k of the channels are the `depth` ones from k depth on, unit k of the outputs the `rows` ones whose window
    starts there. It reads units k to k + reach - 1 of the channels. A block is `together` units of outputs. The number
    of units, that of distinct windows, must be a multiple of it, and the number of outputs one of theirs.
    """

    at: Rolling
    together: int = 1

    @cached_property
    def units(self) -> int:
        """Units of channels, and of outputs."""
        return self.at.distinct

    @cached_property
    def depth(self) -> int:
        """Channels of a unit."""
        return self.at.in_channels // self.at.distinct

    @cached_property
    def rows(self) -> int:
        """Outputs of a unit."""
        return self.at.out_channels // self.at.distinct

    @cached_property
    def reach(self) -> int:
        """Units of channels that a window lies in."""
        return -(-self.at.width // self.depth)

    @cached_property
    def span(self) -> int:
        """Channels that a block reads."""
        return (self.reach + self.together - 1) * self.depth

    @cached_property
    def move(self) -> int:
        """Units from the window of an output to that of the next."""
        return self.at.step // self.depth

    @cached_property
    def order(self) -> Tensor:
        """The first output of each unit; the others come `units` apart."""
        return torch.arange(self.units, device="cpu") * pow(self.move, -1, self.units) % self.units

    @cached_property
    def places(self) -> Tensor:
        """The unit of each of the first `units` outputs."""
        return torch.arange(self.units, device="cpu") * self.move % self.units


def fastest(x: Tensor, weight: Tensor, groups: int, overlap: float, stride: int) -> Band | None:
    """The cut that takes the least time on a CPU; None where the dense way does, or is to refuse the input."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    if stride != 1 or x.dim() != 4 or x.shape[1] != weight.shape[1] * groups or x.device.type != "cpu":
        return None
    if last == x.is_contiguous():  # neither, or a map of one pixel: no telling what the result should be
        return None
    cost, band = cheapest(x.shape[1], weight.shape[0], groups, overlap, _idle(last, x.dtype))
    spared = x.shape[1] - cost - (COPIES_OF_PIXELS if last else COPIES_OF_PLANES)
    return band if spared * (x.numel() // x.shape[1]) * weight.shape[0] > CALLS else None


@lru_cache(maxsize=512)
def cheapest(in_channels: int, out_channels: int, groups: int, overlap: float, idle: int) -> tuple[float, Band]:
    """The least multiply-accumulates for each output, and their cut; infinitely many where there is none."""
    at = Rolling(in_channels, out_channels, groups, overlap)
    if out_channels % at.distinct:
        return inf, Band(at)
    cuts = [Band(at, together) for together in range(1, at.distinct + 1) if at.distinct % together == 0]
    costs = [band.span * (1 + idle / (band.together * band.rows)) for band in cuts]
    return min(costs), cuts[costs.index(min(costs))]


def idle_rows(x: Tensor) -> int:
    """Rows' worth of time that a product takes besides, by the type and the format of the maps."""
    return _idle(x.is_contiguous(memory_format=torch.channels_last), x.dtype)


def _idle(last: bool, dtype: torch.dtype) -> int:
    return IDLE_ROWS_ELSE if last or _converted(dtype) else IDLE_ROWS


def _converted(dtype: torch.dtype) -> bool:
    """Whether torch's products convert or rearrange maps of a type first."""
    return dtype not in (torch.float32, torch.float64)


def banded_forward(x: Tensor, weight: Tensor, bias: Tensor | None, band: Band) -> Tensor:
    """One product for each block, and the outputs put in order."""
    layout = _layout(x, band)
    y = layout.unsort(layout.multiply(_forward_blocks(weight, band), layout.channels(x), band.together * band.depth))
    return y if bias is None else y.add_(bias[:, None, None])


def banded_backward(
    grad: Tensor, x: Tensor, weight: Tensor, band: Band, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """The adjoint of `banded_forward`; gradients that are not wanted are empty."""
    layout = _layout(x, band)
    grad_x, grad_weight, grad_bias = (x.new_empty(0) for _ in range(3))
    above = layout.outputs(grad.contiguous(memory_format=layout.format)) if wanted[0] or wanted[1] else grad
    if wanted[0]:
        blocks = _adjoint_blocks(weight, band)
        grad_x = layout.images(layout.multiply(blocks, above, band.together * band.rows))
    if wanted[1]:
        grad_weight = _to_weight(layout, above, layout.channels(x))
    if wanted[2]:
        grad_bias = grad.sum((0, 2, 3))
    return grad_x, grad_weight, grad_bias


def _in_order(weight: Tensor, band: Band) -> Tensor:
    """(o, cg) -> (units, rows, reach depth), in order of start."""
    rows = weight.view(band.rows, band.units, -1).transpose(0, 1)
    if band.move != 1:
        rows = rows.index_select(0, band.order)
    more = band.reach * band.depth - band.at.width
    return F.pad(rows, (0, more)) if more else rows


def _forward_blocks(weight: Tensor, band: Band) -> Tensor:
    """(blocks, outputs of a block, channels that it reads)."""
    rows = _in_order(weight, band)
    if band.together == 1:
        return rows
    blocks = rows.new_zeros(band.units // band.together, band.together * band.rows, band.span)
    _windows(blocks, band).copy_(rows.view(-1, band.together, *rows.shape[1:]))
    return blocks


def _windows(blocks: Tensor, band: Band) -> Tensor:
    """A view of what lies in the windows, (blocks, together, rows, reach depth): each unit starts `depth` later."""
    a, b, c = blocks.stride()
    shape = (len(blocks), band.together, band.rows, band.reach * band.depth)
    return blocks.as_strided(shape, (a, band.rows * b + band.depth * c, b, c))


def _adjoint_blocks(weight: Tensor, band: Band) -> Tensor:
    """(blocks, channels of a block, outputs that read them)."""
    rows, over, edge = _in_order(weight, band), band.reach - 1, (band.together - 1) * band.depth
    around = F.pad(torch.cat([rows[band.units - over :], rows]), (edge, edge))
    # Of each unit that a block reads, its channels are `depth` further left in the window than of the one before.
    a, b, c = around.stride()
    shape = (band.units // band.together, band.together + over, band.rows, band.together * band.depth)
    strides = (a * band.together, a - band.depth * c, b, c)
    return around.as_strided(shape, strides, (edge + over * band.depth) * c).flatten(1, 2).mT


def _to_weight(layout: "_Planes | _Pixels", above: Tensor, maps: Tensor) -> Tensor:
    """The gradient of the weight, (o, cg), from those of the outputs in order of start."""
    band = layout.band
    high, wide = band.together * band.rows, band.together * band.depth
    runs = _runs(above[(band.reach - 1) * band.rows :], band, high, high)
    blocks = layout.outer(runs, _runs(maps, band, band.span, wide))
    rows = _windows(blocks, band)[..., : band.at.width].flatten(0, 1)
    if band.move != 1:
        rows = rows.index_select(0, band.places)
    # (units, rows, cg) -> (o, cg)
    return rows.transpose(0, 1).flatten(0, 1)


def _runs(maps: Tensor, band: Band, width: int, step: int) -> Tensor:
    """A view (blocks, width, pixels) of the run of rows that each block begins `step` further down."""
    a, b = maps.stride()
    shape = (band.units // band.together, width, maps.shape[1])
    return maps.as_strided(shape, (step * a, a, b), maps.storage_offset())


@dataclass(frozen=True)
class _Planes:
    """Maps stored channel by channel, copied so that the batch makes one matrix (channels, pixels)."""

    band: Band
    batch: int
    height: int
    width: int
    format = torch.contiguous_format

    def channels(self, x: Tensor) -> Tensor:
        """Images -> (channels, pixels), the first channels once more at the end."""
        planes = x.flatten(2).transpose(0, 1)
        return torch.cat([planes, planes[: (self.band.reach - 1) * self.band.depth]]).flatten(1)

    def outputs(self, grad: Tensor) -> Tensor:
        """Images -> (outputs in order, pixels), the last ones before the first."""
        # (b, o, h, w) -> (units, rows, b, pixels)
        units = grad.view(self.batch, self.band.rows, self.band.units, -1).permute(2, 1, 0, 3)
        if self.band.move != 1:
            units = units.index_select(0, self.band.order)
        return torch.cat([units[self.band.units - self.band.reach + 1 :], units]).flatten(0, 1).flatten(1)

    def unsort(self, y: Tensor) -> Tensor:
        """(outputs in order, pixels) -> images."""
        units = y.view(self.band.units, self.band.rows, self.batch, -1)
        if self.band.move != 1:
            units = units.index_select(0, self.band.places)
        return units.permute(2, 1, 0, 3).contiguous().view(self.batch, -1, self.height, self.width)

    def images(self, maps: Tensor) -> Tensor:
        """(channels, pixels) -> images."""
        planes = maps.view(len(maps), self.batch, -1).transpose(0, 1).contiguous()
        return planes.view(self.batch, -1, self.height, self.width)

    def multiply(self, blocks: Tensor, maps: Tensor, step: int) -> Tensor:
        """Each block times its run of the maps, one below the other."""
        return torch.bmm(blocks, _runs(maps, self.band, blocks.shape[2], step)).flatten(0, 1)

    def outer(self, own: Tensor, runs: Tensor) -> Tensor:
        """Their product over the pixels of every block, (blocks, own, runs)."""
        # Copies of a bfloat16 matrix by columns cost more than the product.
        return torch.bmm(runs, own.mT).mT if _converted(own.dtype) else torch.bmm(own, runs.mT)


@dataclass(frozen=True)
class _Pixels:
    """Maps stored pixel by pixel: the batch is one matrix (pixels, channels) as it is."""

    band: Band
    batch: int
    height: int
    width: int
    format = torch.channels_last

    def channels(self, x: Tensor) -> Tensor:
        """Images -> (channels, pixels), the first channels once more at the end."""
        flat = x.permute(0, 2, 3, 1).flatten(0, 2)
        return torch.cat([flat, flat[:, : (self.band.reach - 1) * self.band.depth]], 1).T

    def outputs(self, grad: Tensor) -> Tensor:
        """Images -> (outputs in order, pixels), the last ones before the first."""
        if self.band.move == 1:
            flat = torch.channel_shuffle(grad, self.band.rows).permute(0, 2, 3, 1).flatten(0, 2)
        else:
            order = self.band.order[:, None] + torch.arange(self.band.rows, device="cpu") * self.band.units
            flat = grad.permute(0, 2, 3, 1).flatten(0, 2)
            flat = flat.gather(1, order.flatten().expand(len(flat), -1))
        return torch.cat([flat[:, self.band.rows * (self.band.units - self.band.reach + 1) :], flat], 1).T

    def unsort(self, y: Tensor) -> Tensor:
        """(outputs in order, pixels) -> images."""
        if self.band.move == 1:
            return torch.channel_shuffle(self.images(y), self.band.units)
        places = self.band.places * self.band.rows + torch.arange(self.band.rows, device="cpu")[:, None]
        return self.images(y.T.gather(1, places.flatten().expand(y.shape[1], -1)).T)

    def images(self, maps: Tensor) -> Tensor:
        """(channels, pixels) -> images."""
        return maps.T.view(self.batch, self.height, self.width, -1).permute(0, 3, 1, 2)

    def multiply(self, blocks: Tensor, maps: Tensor, step: int) -> Tensor:
        """Each block times its run of the maps, one below the other."""
        count, rows, width = blocks.shape
        result = maps.new_empty(maps.shape[1], count, rows)
        torch.bmm(_runs(maps, self.band, width, step).mT, blocks.contiguous().mT, out=result.transpose(0, 1))
        return result.flatten(1).T

    def outer(self, own: Tensor, runs: Tensor) -> Tensor:
        """Their product over the pixels of every block, (blocks, own, runs)."""
        return torch.bmm(own, runs.mT)


def _layout(x: Tensor, band: Band) -> _Planes | _Pixels:
    kind = _Pixels if x.is_contiguous(memory_format=torch.channels_last) else _Planes
    return kind(band, x.shape[0], x.shape[2], x.shape[3])
