"""What layers of a net and of its teacher answer to the same images, for a net to learn from."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from convsmith.errors import ConvsmithError


class Responses:
    """Keeps what the modules `layers` of a student and its teacher last answered.

    Raises ConvsmithError where either net lacks one of them.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, layers: Sequence[str]) -> None:
        self._pairs = [(module_of(student, layer), module_of(teacher, layer)) for layer in layers]
        self._answers: dict[nn.Module, Tensor] = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Keep answers from here on."""
        handles = [module.register_forward_hook(self._keep) for pair in self._pairs for module in pair]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def distance(self) -> Tensor:
        """Mean over layers of |student - teacher|^2 / |teacher - its mean|^2, of what both answered last."""
        terms = []
        for student, teacher in self._pairs:
            mine, wanted = self._answers[student].float(), self._answers[teacher].float().detach()
            varying = wanted - wanted.mean((0, 2, 3), keepdim=True)
            terms.append((mine - wanted).square().sum() / varying.square().sum().clamp_min(1e-12))
        return torch.stack(terms).mean()

    def _keep(self, module: nn.Module, args: object, out: Tensor) -> None:
        self._answers[module] = out


def module_of(net: nn.Module, layer: str) -> nn.Module:
    """A layer of student or teacher by its path; raises ConvsmithError where there is none."""
    try:
        return net.get_submodule(layer)
    except AttributeError:
        raise ConvsmithError(
            f"{layer}: student and teacher must both have this layer to match its responses; leave it out."
        ) from None
