"""A convolution as plain data: read from a module, and what it costs."""

from typing import Any

import pytest
import torch
from torch import nn

from convsmith.errors import ConvsmithError
from convsmith.kernels.spec import ConvSpec
from convsmith.testing.oracles import torch_macs

# torch, of an even kernel under `same`, which pads one side more than the other
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

READ: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {"padding": (0, 0), "bias": True}),
    "padded": ({"padding": 1, "bias": False}, {"padding": (1, 1)}),
    "asymmetric": (
        {"kernel_size": (1, 5), "padding": (0, 2), "stride": (1, 2), "bias": False},
        {"kernel": (1, 5), "padding": (0, 2), "stride": (1, 2)},
    ),
    "grouped": ({"groups": 2, "padding": 1}, {"groups": 2, "bias": True}),
    "reflecting": (
        {"padding": 1, "padding_mode": "reflect", "bias": False},
        {"padding": (1, 1), "padding_mode": "reflect"},
    ),
    "valid": ({"padding": "valid", "bias": False}, {"padding": (0, 0)}),
    "same": ({"padding": "same", "bias": False}, {"padding": (1, 1)}),
    "same, dilated": (
        {"kernel_size": (3, 5), "dilation": (2, 1), "padding": "same", "bias": False},
        {"kernel": (3, 5), "dilation": (2, 1), "padding": (2, 2)},
    ),
    "same, even but dilated by two": (
        {"kernel_size": 2, "dilation": 2, "padding": "same", "bias": False},
        {"kernel": (2, 2), "dilation": (2, 2), "padding": (1, 1)},
    ),
}


def module(options: dict[str, Any]) -> nn.Conv2d:
    return nn.Conv2d(4, 6, **({"kernel_size": 3} | options))


@pytest.mark.parametrize("name", READ)
def test_a_module_is_read_with_its_padding_in_numbers(name: str) -> None:
    options, expected = READ[name]
    conv = module(options)
    assert ConvSpec.of(conv) == ConvSpec(4, 6, **expected)


@pytest.mark.parametrize("name", READ)
def test_what_is_read_computes_the_same(name: str) -> None:
    conv = module(READ[name][0])
    spec = ConvSpec.of(conv)
    twin = nn.Conv2d(
        spec.in_channels, spec.out_channels, spec.kernel, spec.stride, spec.padding, spec.dilation,
        spec.groups, spec.bias, spec.padding_mode,
    )  # fmt: skip
    twin.load_state_dict(conv.state_dict())
    x = torch.randn(2, 4, 9, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(twin(x), conv(x), atol=1e-6)


@pytest.mark.parametrize("name", READ)
def test_multiplications_are_those_of_torchs_counter(name: str) -> None:
    conv = module(READ[name][0])
    x = torch.zeros(1, 4, 9, 8)
    height, width = conv(x).shape[2:]
    assert ConvSpec.of(conv).macs((height, width)) == torch_macs(conv, x) > 0


@pytest.mark.parametrize("options", [{"kernel_size": 2}, {"kernel_size": (3, 4)}, {"kernel_size": 4, "dilation": 3}])
def test_uneven_padding_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConvsmithError, match="padded unevenly") as error:
        ConvSpec.of(module(options | {"padding": "same"}))
    assert str(conv_kernel(options)) in str(error.value)
    assert "\n" not in str(error.value)


def conv_kernel(options: dict[str, Any]) -> tuple[int, ...]:
    return tuple(module(options).kernel_size)
