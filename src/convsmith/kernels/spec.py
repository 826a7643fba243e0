"""A two-dimensional convolution as plain data: what a block replaces."""

from dataclasses import dataclass
from math import prod
from typing import Any, Literal, Self, cast

from torch import nn

from convsmith.errors import ConvsmithError

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


@dataclass(frozen=True)
class ConvSpec:
    """Channels, kernel, stride, padding, dilation (pairs: height, width), groups, bias and padding mode.

    >>> ConvSpec(64, 128).macs((16, 16))
    18874368
    """

    in_channels: int
    out_channels: int
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    bias: bool = False
    padding_mode: str = "zeros"

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Self:
        """Read the specification of a module; `same` and `valid` padding are resolved to numbers.

        Raises ConvsmithError where `same` pads one side more than the other: no block pads that way.
        """
        kernel, dilation = _pair(conv.kernel_size), _pair(conv.dilation)
        if conv.padding == "valid":
            padding = (0, 0)
        elif conv.padding == "same":
            total = tuple(d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
            if any(zeros % 2 for zeros in total):
                raise ConvsmithError(
                    f"A {kernel} kernel under `same` is padded unevenly; take its edit out of the plan."
                )
            padding = (total[0] // 2, total[1] // 2)
        else:
            padding = _pair(conv.padding)
        return cls(
            conv.in_channels, conv.out_channels, kernel, _pair(conv.stride), padding, dilation,
            conv.groups, conv.bias is not None, conv.padding_mode,
        )  # fmt: skip

    def standard(self) -> nn.Conv2d:
        """An untrained convolution of this specification."""
        return nn.Conv2d(
            self.in_channels, self.out_channels, self.kernel, self.stride, self.padding, self.dilation, self.groups,
            self.bias, cast(PaddingMode, self.padding_mode),
        )  # fmt: skip

    def macs(self, out_size: tuple[int, int]) -> int:
        """Multiply-accumulates for one image whose output map is `out_size`: K C N H W / groups."""
        return prod(self.kernel) * self.in_channels // self.groups * self.out_channels * prod(out_size)


def is_plain(module: nn.Module) -> bool:
    """Whether a module convolves in two dimensions by a weight of its own as it stands, and does nothing else.

    Not so where the weight is standardized, normalized or made by a parametrization in every run.

    >>> is_plain(nn.Conv2d(3, 8, 3)), is_plain(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3)))
    (True, False)
    """
    own = isinstance(module, nn.Conv2d) and type(module).forward is nn.Conv2d.forward
    return own and "weight" in module._parameters


def _pair(value: Any) -> tuple[int, int]:
    height, width = value
    return int(height), int(width)
