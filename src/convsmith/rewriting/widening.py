"""Copies of units made to read as many channels as the unit makes: wider convolutions and norms, with a fresh start."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import nn

from convsmith.errors import PlanError
from convsmith.kernels.spec import ConvSpec
from convsmith.structure.widening import Widening


def widen(modules: Mapping[str, nn.Module], found: Widening) -> dict[str, nn.Module]:
    """A copy's modules, by the paths of the originals, as wide as `found` says; what has other weights is untrained."""
    made = dict(modules)
    for paths, reads in ((found.reading, True), (found.through, False)):
        for path in paths:
            top = next(each for each in made if path == each or path.startswith(f"{each}."))
            inner = path.removeprefix(top).removeprefix(".")
            new = _wider(made[top].get_submodule(inner), found.width, reads)
            if inner:
                made[top].set_submodule(inner, new)
            else:
                made[top] = new
    return made


def _wider(module: nn.Module, width: int, reads: bool) -> nn.Module:
    like = next((x for x in (*module.parameters(), *module.buffers()) if x.is_floating_point()), torch.zeros(0))
    if type(module) not in _WIDER:
        raise PlanError(f"A {type(module).__name__} cannot be made wider, as a copy of its unit needs; take it out.")
    with torch.device(like.device):
        made = _WIDER[type(module)](module, width, reads)
    return made.to(like.dtype).train(module.training)


def _convolution(conv: nn.Conv2d, width: int, reads: bool) -> nn.Module:
    """Dense, it reads more channels; depthwise, it has more of them."""
    spec = replace(ConvSpec.of(conv), in_channels=width)
    return (spec if reads else replace(spec, out_channels=width, groups=width)).standard()


def _norm(norm: nn.BatchNorm2d, width: int, reads: bool) -> nn.Module:
    return nn.BatchNorm2d(width, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)


# By kind of module, and no other of its kind: one that does more would lose that.
_WIDER: dict[type[nn.Module], Callable[..., nn.Module]] = {nn.Conv2d: _convolution, nn.BatchNorm2d: _norm}
