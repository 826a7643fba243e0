"""Rolling pointwise convolution on a CPU as products of neighbouring windows, with its adjoint.

In order of their starts the windows make a band that goes round: unit k, the outputs that start at channel k unit,
reads the channels from there on. The outputs of some units in a row so read one run of channels, a view of the maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from convsmith.kernels.rolling import Rolling


@dataclass(frozen=True)
class Band:
    """How to cut the band into blocks: `together` units of outputs each.

        units = distinct windows,  unit = Cin / units channels,  rows = Cout / units outputs of each unit
    """

    at: Rolling
    together: int = 1

    @cached_property
    def units(self) -> int:
        """Distinct windows."""
        return self.at.distinct

    @cached_property
    def unit(self) -> int:
        """Channels between two neighbouring starts."""
        return self.at.in_channels // self.units

    @cached_property
    def rows(self) -> int:
        """Outputs that read the same window."""
        return self.at.out_channels // self.units

    @cached_property
    def reach(self) -> int:
        """Units of channels that a window lies in."""
        return -(-self.at.width // self.unit)

    @cached_property
    def moved(self) -> int:
        """Units from an output's window to the next one's."""
        return self.at.step // self.unit


def banded_forward(x: Tensor, weight: Tensor, bias: Tensor | None, band: Band) -> Tensor:
    """One product for each block of units, and the outputs put in order."""
    maps = _columns(x, (band.reach - 1) * band.unit)
    blocks = _blocks(_in_order(weight, band), band)
    y = _unsorted(_products(blocks, maps, band.together * band.unit), x, band)
    return y if bias is None else y.add_(bias[:, None, None])


def banded_backward(
    grad: Tensor, x: Tensor, weight: Tensor, band: Band, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """The adjoint of `banded_forward`; gradients that are not wanted are empty."""
    grad = grad.contiguous(memory_format=_format(x))
    above = _sorted(grad, band)
    grad_x = _to_maps(above, x, weight, band) if wanted[0] else x.new_empty(0)
    grad_weight = _to_weight(above, x, band) if wanted[1] else x.new_empty(0)
    grad_bias = grad.sum((0, 2, 3)) if wanted[2] else x.new_empty(0)
    return grad_x, grad_weight, grad_bias


def _format(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _last(x):
    return x.is_contiguous(memory_format=torch.channels_last)


def _columns(x: Tensor, more: int) -> Tensor:
    """(b, c, h, w) -> (c + more, b h w), the first channels once more at the end."""
    c = x.shape[1]
    if _last(x):
        flat = x.permute(0, 2, 3, 1).flatten(0, 2)
        return torch.cat([flat, flat[:, :more]], 1).T
    index = torch.arange(c + more) % c
    return x.flatten(2).transpose(0, 1).index_select(0, index).flatten(1)


def _sorted(grad: Tensor, band: Band) -> Tensor:
    """(b, o, h, w) -> (before + o, b h w) in order of start, the last `reach - 1` units' before the first."""
    more = (band.reach - 1) * band.rows
    if _last(grad) and band.moved == 1:
        flat = torch.channel_shuffle(grad, band.rows).permute(0, 2, 3, 1).flatten(0, 2)
        return torch.cat([flat[:, len(flat[0]) - more :], flat], 1).T
    order = torch.arange(band.units) * pow(band.moved, -1, band.units) % band.units
    order = (order[:, None] + torch.arange(band.rows) * band.units).flatten()
    order = torch.cat([order[len(order) - more :], order])
    if _last(grad):
        flat = grad.permute(0, 2, 3, 1).flatten(0, 2)
        return flat.gather(1, order.expand(len(flat), -1)).T
    return grad.flatten(2).transpose(0, 1).index_select(0, order).flatten(1)


def _unsorted(y: Tensor, x: Tensor, band: Band) -> Tensor:
    b, _, h, w = x.shape
    if _last(x) and band.moved == 1:
        return torch.channel_shuffle(y.T.view(b, h, w, -1).permute(0, 3, 1, 2), band.units)
    slot = torch.arange(band.units) * band.moved % band.units * band.rows
    slot = (slot + torch.arange(band.rows)[:, None]).flatten()
    if _last(x):
        return y.T.gather(1, slot.expand(y.shape[1], -1)).view(b, h, w, -1).permute(0, 3, 1, 2)
    return y.view(-1, b, h * w).transpose(0, 1).index_select(1, slot).view(b, -1, h, w)


def _in_order(weight: Tensor, band: Band) -> Tensor:
    """(o, cg) -> (units, rows, cg) in order of start."""
    rows = weight.unflatten(0, (band.rows, band.units)).transpose(0, 1)
    if band.moved != 1:
        order = torch.arange(band.units) * pow(band.moved, -1, band.units) % band.units
        rows = rows.index_select(0, order)
    more = band.reach * band.unit - rows.shape[2]
    return F.pad(rows, (0, more)) if more else rows


def _blocks(rows: Tensor, band: Band) -> Tensor:
    """(units, p, q) -> (units / together, ...), each unit's one unit further down and right than the one before."""
    if band.together == 1:
        return rows
    n, p, q = rows.shape
    k = band.together - 1
    space = rows.new_zeros(n // band.together, p + k * band.rows, q + k * band.unit)
    _diagonal(space, band, p, q).copy_(rows.unflatten(0, (-1, band.together)))
    return space


def _diagonal(space: Tensor, band: Band, p: int, q: int) -> Tensor:
    a, b, c = space.stride()
    return space.as_strided((len(space), band.together, p, q), (a, band.rows * b + band.unit * c, b, c))


def _products(blocks: Tensor, maps: Tensor, step: int) -> Tensor:
    """Block i times the run of channels from i step on, one below the other: (blocks, p, q) -> (blocks p, pixels)."""
    n, p, q = blocks.shape
    windows = _windows(maps, n, q, step)
    if maps.stride(1) == 1:
        return torch.bmm(blocks, windows).flatten(0, 1)
    result = maps.new_empty(maps.shape[1], n, p)
    torch.bmm(windows.mT, blocks.mT, out=result.transpose(0, 1))
    return result.flatten(1).T


def _windows(maps: Tensor, count: int, width: int, step: int) -> Tensor:
    a, b = maps.stride()
    return maps.as_strided((count, width, maps.shape[1]), (step * a, a, b), maps.storage_offset())


def _to_maps(above: Tensor, x: Tensor, weight: Tensor, band: Band) -> Tensor:
    rows = _in_order(weight, band)
    around = torch.cat([rows[band.units - band.reach + 1 :], rows])
    a, b, c = around.stride()
    d = band.unit
    adj = around.as_strided(
        (band.units, band.reach, band.rows, d), (a, a - d * c, b, c), (band.reach - 1) * d
    )
    blocks = _blocks(adj.flatten(1, 2), band).mT
    g = _products(blocks, above, band.together * band.rows)
    bb, _, h, w = x.shape
    if _last(x):
        return g.T.view(bb, h, w, -1).permute(0, 3, 1, 2)
    return g.view(-1, bb, h * w).transpose(0, 1).contiguous().view(bb, -1, h, w)


def _to_weight(above: Tensor, x: Tensor, band: Band) -> Tensor:
    maps = _columns(x, (band.reach - 1) * band.unit)
    n, t = band.units // band.together, band.together
    windows = _windows(maps, n, (band.reach + t - 1) * band.unit, t * band.unit)
    own = _windows(above[(band.reach - 1) * band.rows :], n, t * band.rows, t * band.rows)
    if _last(x):
        found = torch.bmm(own, windows.mT)
    else:
        found = torch.bmm(windows, own.mT).mT
    rows = _diagonal(found, band, band.rows, band.reach * band.unit)[..., : band.at.width].flatten(0, 1)
    # (units, rows, cg) -> (rows, units, cg)
    if band.moved != 1:
        rows = rows.index_select(0, torch.arange(band.units) * band.moved % band.units)
    return rows.transpose(0, 1).flatten(0, 1)
