"""What reach does not know: it follows calls, and numbers that vanish by algebra are counted as seen."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convsmith as cs
from convsmith.testing.oracles import gradient_support, seen_by_gradient, seen_by_reach


class Made(nn.Module):
    def __init__(self, make: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor) -> Any:
        return self.make(x)


PLACE, SHAPE = (0, 0, 2, 2), (2, 5, 5)
VANISHING: dict[str, Callable[[Tensor], Tensor]] = {
    "a difference with itself": lambda x: x - x,
    "a factor of zero": lambda x: x * 0,
    "a convolution with zeros": lambda x: F.conv2d(x, torch.zeros(2, 2, 1, 1, dtype=x.dtype)),
    "a norm of one number": lambda x: F.group_norm(x.flatten(2).transpose(1, 2).reshape(-1, 1), 1).reshape(1, 2, 5, 5),
    "a softmax of one number": lambda x: x.unsqueeze(-1).softmax(-1).squeeze(-1),
}


@pytest.mark.parametrize("name", VANISHING)
def test_what_vanishes_by_algebra_is_counted_as_seen(name: str) -> None:
    net, x = Made(VANISHING[name]).double(), torch.rand(1, *SHAPE, dtype=torch.float64)
    graph = cs.capture(net, x)
    seen = seen_by_reach(graph.reaches()[graph.outputs[0]], PLACE)
    assert seen != ((), ())
    (support,) = gradient_support(net, SHAPE, [PLACE], draws=3)
    assert not support.any() or seen_by_gradient(support) == seen  # rounding leaves a gradient here and there


def test_a_product_with_the_zeros_of_a_padding_is_a_bound() -> None:
    """What it sees may be less than is told, and this is told."""
    net = Made(lambda x: F.pad(x, (2, 0)) * F.pad(x, (0, 2)))
    graph = cs.capture(net, torch.rand(1, *SHAPE))
    assert graph.reaches()[graph.outputs[0]].bound
