"""How far what a net answers is from what its teacher does: the distance that unlabelled images train by."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from convsmith.calibration.pictures import Several, arguments
from convsmith.errors import ConvsmithError
from convsmith.graph.answers import answered

Distance = Callable[[Tensor | Several], Tensor]
Pair = tuple[str, nn.Module, nn.Module]  # what it is called, the module that learns, and its teacher


@contextmanager
def matching(model: nn.Module, teacher: nn.Module, pairs: Sequence[Pair]) -> Iterator[Distance]:
    """The distance of what pairs of modules answer to images, while this is open.

    It is the mean, over all tensors of floats, of |model - teacher|^2 / |teacher - its mean over the images|^2. Raises
    ConvsmithError where two answer other shapes, or no floats.
    """
    answers: dict[nn.Module, list[Tensor]] = {}

    def keep(module: nn.Module, args: object, out: Any) -> None:
        answers[module] = [tensor for tensor in answered(out) if tensor.is_floating_point()]

    handles = [module.register_forward_hook(keep) for _, *both in pairs for module in both]

    def distance(images: Tensor | Several) -> Tensor:
        for net, grad in ((teacher, False), (model, torch.is_grad_enabled())):
            args, named = arguments(images.clone())
            with torch.set_grad_enabled(grad):
                net(*args, **named)
        terms = [term for name, mine, its in pairs for term in _terms(name, answers[mine], answers[its])]
        return torch.stack(terms).mean()

    try:
        yield distance
    finally:
        for handle in handles:
            handle.remove()


def _terms(name: str, mine: list[Tensor], wanted: list[Tensor]) -> Iterator[Tensor]:
    shapes, others = ([tuple(tensor.shape) for tensor in each] for each in (mine, wanted))
    if shapes != others or not shapes:
        what = f"answers {shapes}, and its teacher {others}" if shapes or others else "answers no floats"
        raise ConvsmithError(f"{name or 'The net'} {what}; match modules that answer alike, as match=('backbone',).")
    for new, old in zip(mine, wanted, strict=True):
        old = old.detach().float()
        varying = (old - old.mean(0)).square().sum()
        energy = torch.where(varying > 0, varying, old.square().sum())
        yield (new.float() - old).square().sum() / energy.clamp_min(1e-12)
