"""Weights that forward makes anew from parts (weight_norm, spectral_norm, pruning), as the plain weights they make."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True, eq=False)
class Parts:
    """A tensor of a module that a hook makes before every run, and how to keep what it makes in its place."""

    path: str
    module: nn.Module
    name: str
    how: str
    settle: Callable[[nn.Module, str], nn.Module]


def parts_of(model: nn.Module) -> list[Parts]:
    """The tensors that torch's own hooks make: what they make in evaluation is always the same, so it can be kept.

    >>> [(found.path, found.how) for found in parts_of(prune.l1_unstructured(nn.Conv2d(3, 8, 3), "weight", 0.5))]
    [('', 'pruning')]
    """
    return [
        Parts(path, module, *known)
        for path, module in model.named_modules()
        for hook in module._forward_pre_hooks.values()
        for known in _known(hook)
    ]


def _known(hook: Any) -> Iterator[tuple[str, str, Callable[[nn.Module, str], nn.Module]]]:
    if isinstance(hook, WeightNorm):
        yield hook.name, "weight_norm", remove_weight_norm
    elif isinstance(hook, SpectralNorm):
        yield hook.name, "spectral_norm", remove_spectral_norm
    elif isinstance(hook, prune.BasePruningMethod):
        yield str(hook._tensor_name), "pruning", prune.remove


def plain(model: nn.Module) -> nn.Module:
    """The model itself where no weight is made of parts, else a copy in which each is the weight that they make.

    In evaluation the copy computes what the model does. Training it is another matter: pruned weights are then free,
    and norms of weights too.

    >>> layer = prune.l1_unstructured(nn.Conv2d(3, 8, 3), "weight", 0.5)
    >>> [name for name, _ in layer.named_parameters()], [name for name, _ in plain(layer).named_parameters()]
    (['bias', 'weight_orig'], ['bias', 'weight'])
    """
    if not parts_of(model):
        return model
    replica = copied(model)
    for found in parts_of(replica):
        found.settle(found.module, found.name)
    return replica


def copied(model: nn.Module) -> nn.Module:
    """A deep copy, of models too that keep tensors a call has made (torch's own copy refuses these).

    >>> layer = nn.Conv2d(3, 8, 3)
    >>> layer.last = layer.weight * 2
    >>> copied(layer).last.requires_grad
    False
    """
    made = (
        leaf
        for module in model.modules()
        for leaf in tree_leaves([*vars(module).values()])
        if isinstance(leaf, Tensor) and leaf.grad_fn is not None
    )
    return deepcopy(model, {id(tensor): tensor.detach().clone() for tensor in made})


def told(model: nn.Module) -> tuple[str, ...]:
    """A sentence on the weights that `plain` would keep, if any."""
    found = parts_of(model)
    if not found:
        return ()
    shown = ", ".join(f"{each.path} ({each.how})" for each in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return (f"{shown}{more}: read as the weights that they make; what is made of this model keeps these alone",)
