"""Weights that a checkpoint keeps in parts, put together: weight_norm, pruning masks, spectral_norm."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from convsmith.load.checkpoint import SHOWN


@dataclass(frozen=True)
class Parts:
    """A way to keep a weight: the endings of its keys behind the layer's path, and how the weight is made of them."""

    name: str
    endings: tuple[str, ...]
    weight: Callable[..., Tensor]


def _normed(size: Tensor, direction: Tensor) -> Tensor:
    """The weight g v / |v|, the norm over all dimensions but the one that g has; of all where g is a number."""
    dims = [dim for dim in range(direction.ndim) if size.ndim == 0 or size.shape[dim] == 1]
    length: Tensor = torch.linalg.vector_norm(direction, dim=dims, keepdim=size.ndim > 0)
    return direction * (size / length)


def _masked(weight: Tensor, mask: Tensor) -> Tensor:
    return weight * mask


def _spectral(weight: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The weight V / (u' V r): the sizes of u and r tell which dimension u runs over, the first one where both do."""
    sizes = len(left), len(right)
    rows = [weight.movedim(dim, 0).flatten(1) for dim in range(weight.ndim)]
    return weight / (left @ next(matrix for matrix in rows if matrix.shape == sizes) @ right)


# The order matters where endings are parts of others: the longer first.
PARTS = (
    Parts("spectral_norm", ("weight_orig", "weight_u", "weight_v"), _spectral),
    Parts("pruning", ("weight_orig", "weight_mask"), _masked),
    Parts("pruning", ("bias_orig", "bias_mask"), _masked),
    Parts("weight_norm", ("weight_g", "weight_v"), _normed),
    Parts("weight_norm", ("parametrizations.weight.original0", "parametrizations.weight.original1"), _normed),
    Parts(
        "spectral_norm",
        ("parametrizations.weight.original", "parametrizations.weight.0._u", "parametrizations.weight.0._v"),
        _spectral,
    ),
)


def plain_weights(given: Mapping[str, Tensor], wanted: Collection[str]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The same tensors, those of weights in parts put together where a model wants no such parts, and a note on each.

    >>> parts = {"0.weight_orig": torch.ones(2), "0.weight_mask": torch.tensor([1.0, 0.0])}
    >>> plain_weights(parts, ["0.weight"])
    ({'0.weight': tensor([1., 0.])}, ('0.weight: put together from its pruning',))
    """
    state, notes = dict(given), list[str]()
    asked = {ending for parts in PARTS for ending in parts.endings if any(key.endswith(ending) for key in wanted)}
    for parts in PARTS:
        first = parts.endings[0]
        if first in asked:
            continue
        paths = [key.removesuffix(first) for key in state if key == first or key.endswith(f".{first}")]
        what = "bias" if first.startswith("bias") else "weight"
        made = [path for path in paths if _put_together(state, path, what, parts)]
        if made:
            notes.append(_told(made, parts.name, what))
    return state, tuple(notes)


def _put_together(state: dict[str, Tensor], path: str, what: str, parts: Parts) -> bool:
    """Whether a layer's parts are all there and fit each other; they are then one."""
    keys = [path + ending for ending in parts.endings]
    try:
        weight = parts.weight(*(state[key] for key in keys))
    except (KeyError, RuntimeError, StopIteration, IndexError, TypeError):
        return False
    for key in keys:
        del state[key]
    state[path + what] = weight
    return True


def _told(paths: list[str], how: str, what: str) -> str:
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return f"{', '.join(f'{path}{what}' for path in paths[:SHOWN])}{more}: put together from its {how}"
