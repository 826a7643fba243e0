"""Independent judges: autograd for what elements see, torch's own counter for multiplications."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from convsmith.reach import Reach

Net = Callable[[Tensor], Tensor]
Seen = tuple[tuple[bool, ...], tuple[tuple[int, int], ...]]  # source channels, and first and last position per axis


def torch_macs(model: nn.Module, x: Tensor) -> int:
    """Half of what torch's FlopCounterMode counts in evaluation mode, attention by plain products.

    Fused kernels of some processors are counted as nothing.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model.eval()(x)
    return int(counter.get_total_flops()) // 2


def transparent(model: nn.Module) -> nn.Module:
    """Positive weights in float64, alike in size and the same in every run.

    What is positive stays so, no path is hidden by a sign or a sum of zero, and no place is always the largest.
    """
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        drawn = torch.rand(parameter.shape, generator=generator, dtype=torch.float64) + 0.5
        parameter.data = drawn * (parameter.data.double().abs().mean() + 0.05)
    return model.double().eval()


def sample(shape: Sequence[int], most: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Indices into a tensor: all of them, or the corners and a draw."""
    total = int(np.prod(shape))
    drawn = np.random.default_rng(seed).choice(total, min(total, most), replace=False)
    flat = sorted({0, total - 1, *map(int, drawn)})
    return [tuple(map(int, np.unravel_index(i, tuple(shape)))) for i in flat]


def gradient_support(
    net: Net, shape: Sequence[int], indices: Sequence[tuple[int, ...]], draws: int, seed: int = 0
) -> list[NDArray[np.bool_]]:
    """For each output index the input elements (c, *map) with a gradient in any of some draws of positive inputs."""
    supports = [np.zeros(tuple(shape), np.bool_) for _ in indices]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(draws):
        x = torch.rand(1, *shape, generator=generator, dtype=torch.float64).add_(0.05).requires_grad_()
        out = net(x)
        for support, index in zip(supports, indices, strict=True):
            (gradient,) = torch.autograd.grad(out[index], x, retain_graph=True, allow_unused=True)
            support |= gradient[0].numpy() != 0 if gradient is not None else False
    return supports


def seen_by_gradient(support: NDArray[np.bool_]) -> Seen:
    """A support as channels and the hull per axis; (1, 0) for an axis where nothing is seen."""
    channels = tuple(bool(c.any()) for c in support)
    spans = []
    for axis in range(1, support.ndim):
        others = tuple(d for d in range(support.ndim) if d != axis)
        places = np.flatnonzero(support.any(others))
        spans.append((int(places[0]), int(places[-1])) if len(places) else (1, 0))
    return channels, tuple(spans)


def seen_by_reach(reach: Reach, index: tuple[int, ...]) -> Seen:
    """The same from a computed reach."""
    channels, spans = reach.at(index)
    return tuple(map(bool, channels)), tuple(span if span[0] <= span[1] else (1, 0) for span in spans)


def disagreements(
    net: Net, shape: Sequence[int], reach: Reach, *, most: int = 60, draws: int = 3
) -> Iterator[tuple[tuple[int, ...], Seen, Seen]]:
    """The output indices where a computed reach is not what autograd finds, with both answers."""
    indices = sample(reach.shape, most)
    for index, support in zip(indices, gradient_support(net, shape, indices, draws), strict=True):
        computed, by_gradient = seen_by_reach(reach, index), seen_by_gradient(support)
        if computed != by_gradient:
            yield index, computed, by_gradient


def exceeded(computed: Seen, found: Seen) -> bool:
    """Whether something was found that a bound leaves out."""
    channels = any(b and not a for a, b in zip(computed[0], found[0], strict=True))
    spans = zip(computed[1], found[1], strict=True)
    return channels or any(low <= high and (low < first or high > last) for (first, last), (low, high) in spans)


def hold(true: object, otherwise: str) -> None:
    """Raise an AssertionError with a sentence where something does not hold; unlike `assert`, under -O too."""
    if not true:
        raise AssertionError(otherwise)
