"""Views, permutations, joins and splits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from specimens.base import Specimen, alone, aten, behind, joined, own

ROWS = (2, 4, 6)


def shuffled(x: Tensor) -> Tensor:
    return x.view(-1, 2, 2, 7, 6).transpose(1, 2).reshape(-1, 4, 7, 6)


def to_depth(x: Tensor) -> Tensor:
    return x.view(-1, 2, 2, 2, 3, 2).permute(0, 3, 5, 1, 2, 4).reshape(-1, 8, 2, 3)


def focus(x: Tensor) -> Tensor:
    return torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)


def partitioned(x: Tensor) -> Tensor:
    """Windows in the batch and back, with a shift of each in between."""
    windows = x[:, :, :6].reshape(1, 4, 3, 2, 2, 3).permute(0, 2, 4, 3, 5, 1).reshape(6, 2, 3, 4)
    return windows.roll(1, 2).reshape(1, 3, 2, 2, 3, 4).permute(0, 1, 3, 2, 4, 5).reshape(1, 6, 6, 4)


def counted(x: Tensor) -> Tensor:
    """A gate made of which channel is largest; no gradient goes through it."""
    return x * F.one_hot(x.argmax(1), 4).sum((0, 1, 2)).add(1).reshape(1, 4, 1, 1)


def overwritten(x: Tensor) -> Tensor:
    """A part written through a view, and what stood before around it."""
    new = x.roll(1, 1)
    new[:, 1:3, ::2] = x[:, :2, :4].flip(2)
    return new


SHAPES: dict[str, Specimen] = {
    "channel shuffle": behind(shuffled),
    "channel shuffle, by name": behind(lambda x: aten.channel_shuffle.default(x, 2)),
    "space to depth": alone(to_depth, *ROWS),
    "space to depth by slices": alone(focus, *ROWS),
    "pixel shuffle": behind(lambda x: torch.pixel_shuffle(x, 2)),
    "pixel unshuffle": alone(lambda x: torch.pixel_unshuffle(x, 2), *ROWS),
    "windows in the batch": behind(partitioned),
    "groups in the batch": behind(lambda x: x.reshape(2, 2, 7, 6).mean(1).reshape(1, 2, 7, 6)),
    "flatten": behind(lambda x: x.flatten(1)),
    "ravel": behind(lambda x: x.ravel()),
    "unflatten": behind(lambda x: x.unflatten(1, (2, 2))),
    "unsafe view": behind(lambda x: aten._unsafe_view.default(x, [1, 2, 2, 7, 6])),
    "view as": joined(lambda a, b: aten.view_as.default(a.flatten(2), b)),
    "reshape as": joined(lambda a, b: aten.reshape_as.default(a.transpose(1, 2), b)),
    "unsqueeze, squeeze": behind(lambda x: x.unsqueeze(1).squeeze(1)),
    "squeeze several": behind(lambda x: x.unsqueeze(1).unsqueeze(1).squeeze((1, 2))),
    "squeeze all": behind(lambda x: x.mean(2, keepdim=True).squeeze()),
    "at least one": behind(lambda x: aten.atleast_1d.default(x.mean())),
    "permute": behind(lambda x: x.permute(0, 2, 3, 1)),
    "permute the batch": behind(lambda x: x.permute(1, 0, 3, 2)),
    "transpose": behind(lambda x: x.transpose(1, 3)),
    "swap axes": behind(lambda x: aten.swapaxes.default(x, 1, 2)),
    "swap dimensions": behind(lambda x: aten.swapdims.default(x, 2, -1)),
    "transposed matrix": behind(lambda x: x[0, 1].t()),
    "transposed matrix, as numpy": behind(lambda x: aten.numpy_T.default(x[0, 2])),
    "transposed matrices": behind(lambda x: aten.mT.default(x)),
    "adjoint matrices": behind(lambda x: aten.adjoint.default(x)),
    "move a dimension": behind(lambda x: torch.movedim(x, 1, -1)),
    "move dimensions": behind(lambda x: torch.movedim(x, (3, 1), (1, 2))),
    "move an axis": behind(lambda x: aten.moveaxis.int(x, 3, 1)),
    "move axes": behind(lambda x: aten.moveaxis.intlist(x, [1, 2], [3, 1])),
    "slice": behind(lambda x: x[:, 1:, ::2, -4:-1]),
    "slice of the batch": behind(lambda x: x[:1]),
    "narrow": behind(lambda x: x.narrow(2, 3, 2)),
    "select": behind(lambda x: x[:, -1, 2]),
    "unbind": behind(lambda x: torch.stack(x.unbind(2)[::-1], 1)),
    "stack": joined(lambda a, b: torch.stack([a, b], 2)),
    "stack at the end": joined(lambda a, b: torch.stack([a, b], -1)),
    "cat": joined(lambda a, b: torch.cat([a, b[:, :2]], 1)),
    "cat on the map": joined(lambda a, b: torch.cat([a, b], 2)),
    "cat on the batch": joined(lambda a, b: torch.cat([a, b], 0)),
    "cat of other layouts": joined(lambda a, b: torch.cat([a.flatten(2), b.flatten(2)], 1)),
    "cat with nothing": behind(lambda x: torch.cat([x[:, :0], x], 1)),
    "split": behind(lambda x: torch.cat(x.split(3, 1)[::-1], 1)),
    "split by sizes": behind(lambda x: torch.cat(x.split([1, 3], 1)[::-1], 1)),
    "split by sizes, in ATen": behind(lambda x: torch.cat(aten.split.sizes(x, [1, 3], 1)[::-1], 1)),
    "unsafe split": behind(lambda x: torch.cat(aten.unsafe_split.Tensor(x, 3, 1)[::-1], 1)),
    "chunk": behind(lambda x: torch.cat(x.chunk(2, 2)[::-1], 2)),
    "unsafe chunk": behind(lambda x: torch.cat(aten.unsafe_chunk.default(x, 2, 2)[::-1], 2)),
    "split into sections": behind(lambda x: torch.cat(x.tensor_split(3, 1)[::-1], 1)),
    "split at": behind(lambda x: torch.cat(x.tensor_split((1, 2), 1)[::-1], 1)),
    "expand": behind(lambda x: x.mean(1, keepdim=True).expand(-1, 3, -1, -1)),
    "expand as": joined(lambda a, b: a.mean((2, 3), keepdim=True).expand_as(b)),
    "a table expanded as": behind(lambda x: torch.cat([own(1, 4, 1, 1).expand_as(x), x], 1)),
    "a table viewed as": behind(lambda x: torch.cat([aten.view_as.default(own(168), x), x], 1)),
    "broadcast": behind(lambda x: aten.broadcast_to.default(x[:, :, :1], [2, 1, 4, 7, 6])),
    "repeat": behind(lambda x: x.repeat(1, 2, 1, 2)),
    "repeat in a new dimension": behind(lambda x: x.repeat(3, 1, 1, 1, 1)),
    "tile": behind(lambda x: x.tile(2, 1, 1)),
    "overwritten in part": behind(overwritten),
    "one hot": alone(counted),
    "repeat interleaved": behind(lambda x: x.repeat_interleave(2, 3).repeat_interleave(3, 1)),
    "repeat interleaved, all": behind(lambda x: x.repeat_interleave(2)),
}
