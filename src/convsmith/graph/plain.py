"""Weights that forward makes anew from parts (weight_norm, spectral_norm, pruning), as the plain weights they make."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.parametrizations import _Orthogonal, _SpectralNorm, _WeightNorm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils._pytree import tree_leaves

# torch's own parametrizations, which make the same tensor in every run of evaluation; those of others may not.
STEADY: Mapping[type[nn.Module], str] = {
    _WeightNorm: "weight_norm", _SpectralNorm: "spectral_norm", _Orthogonal: "orthogonal",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Parts:
    """A tensor of a module that is made anew in every run, and how to keep what is made in its place."""

    path: str
    module: nn.Module
    name: str
    how: str
    settle: Callable[[nn.Module, str], nn.Module]


def parts_of(model: nn.Module) -> list[Parts]:
    """The tensors that torch's own hooks and parametrizations make, in evaluation always the same, so it can be kept.

    >>> [(found.path, found.how) for found in parts_of(prune.l1_unstructured(nn.Conv2d(3, 8, 3), "weight", 0.5))]
    [('', 'pruning')]
    """
    return [
        Parts(path, module, *known)
        for path, module in model.named_modules()
        for known in (*chain.from_iterable(map(_known, module._forward_pre_hooks.values())), *_parametrized(module))
    ]


def _known(hook: Any) -> Iterator[tuple[str, str, Callable[[nn.Module, str], nn.Module]]]:
    if isinstance(hook, WeightNorm):
        yield hook.name, "weight_norm", remove_weight_norm
    elif isinstance(hook, SpectralNorm):
        yield hook.name, "spectral_norm", remove_spectral_norm
    elif isinstance(hook, prune.BasePruningMethod):
        yield str(hook._tensor_name), "pruning", prune.remove


def _parametrized(module: nn.Module) -> Iterator[tuple[str, str, Callable[[nn.Module, str], nn.Module]]]:
    """Tensors of a module that known parametrizations alone make."""
    if parametrize.is_parametrized(module):
        for name, row in module.parametrizations.items():  # type: ignore[operator, union-attr]
            kinds = [STEADY.get(type(each)) for each in row]
            if None not in kinds:
                yield name, " and ".join(map(str, kinds)), _kept


def _kept(module: nn.Module, name: str) -> nn.Module:
    """What a parametrization makes in evaluation, in its place."""
    kind = type(module)  # the original has the same one, from which torch takes the tensor's property
    module.__class__ = type(kind.__name__, kind.__bases__, dict(vars(kind)))
    module.parametrizations.eval()  # type: ignore[union-attr]
    return parametrize.remove_parametrizations(module, name, leave_parametrized=True)


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
