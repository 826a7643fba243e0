"""A convolution over one, two or three axes as plain data: what a block replaces."""

from dataclasses import dataclass
from math import prod
from typing import Any, Literal, Self, TypeGuard, cast

from torch import nn

from convsmith.errors import ConvsmithError

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
KINDS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)  # by the number of axes


@dataclass(frozen=True)
class ConvSpec:
    """Channels, kernel, stride, padding, dilation (a number an axis, as height and width), groups, bias, padding mode.

    >>> ConvSpec(64, 128).macs((16, 16))
    18874368
    >>> ConvSpec(64, 128, (3,), (1,), (1,), (1,)).standard()
    Conv1d(64, 128, kernel_size=(3,), stride=(1,), padding=(1,), bias=False)
    """

    in_channels: int
    out_channels: int
    kernel: tuple[int, ...] = (3, 3)
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (1, 1)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1
    bias: bool = False
    padding_mode: str = "zeros"

    @classmethod
    def of(cls, conv: Convolution) -> Self:
        """Read the specification of a module; `same` and `valid` padding are resolved to numbers.

        Raises ConvsmithError where `same` pads one side more than the other: no block pads that way.
        """
        kernel, dilation = _whole(conv.kernel_size), _whole(conv.dilation)
        if conv.padding == "valid":
            padding = (0,) * len(kernel)
        elif conv.padding == "same":
            total = tuple(d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
            if any(zeros % 2 for zeros in total):
                raise ConvsmithError(
                    f"A {kernel} kernel under `same` is padded unevenly; take its edit out of the plan."
                )
            padding = tuple(zeros // 2 for zeros in total)
        else:
            padding = _whole(conv.padding)
        return cls(
            conv.in_channels, conv.out_channels, kernel, _whole(conv.stride), padding, dilation,
            conv.groups, conv.bias is not None, conv.padding_mode,
        )  # fmt: skip

    @property
    def axes(self) -> int:
        """How many axes it slides along."""
        return len(self.kernel)

    def standard(self) -> Convolution:
        """An untrained convolution of this specification."""
        kind: Any = KINDS[self.axes - 1]
        made: Convolution = kind(
            self.in_channels, self.out_channels, self.kernel, self.stride, self.padding, self.dilation, self.groups,
            self.bias, cast(PaddingMode, self.padding_mode),
        )  # fmt: skip
        return made

    def pointwise(self, inputs: int, outputs: int, bias: bool = False, groups: int = 1) -> Convolution:
        """An untrained kernel of one tap over the same axes, at stride 1.

        >>> ConvSpec(8, 16).pointwise(8, 4)
        Conv2d(8, 4, kernel_size=(1, 1), stride=(1, 1), bias=False)
        """
        kind: Any = KINDS[self.axes - 1]
        made: Convolution = kind(inputs, outputs, 1, groups=groups, bias=bias)
        return made

    def macs(self, out_size: tuple[int, ...]) -> int:
        """Multiply-accumulates for one image whose output map is `out_size`: K C N H W / groups."""
        return prod(self.kernel) * self.in_channels // self.groups * self.out_channels * prod(out_size)


def is_plain(module: nn.Module) -> TypeGuard[Convolution]:
    """Whether a module convolves by a weight of its own as it stands, and does nothing else.

    Not so where the weight is standardized, normalized or made by a parametrization in every run.

    >>> is_plain(nn.Conv2d(3, 8, 3)), is_plain(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3)))
    (True, False)
    """
    plain = isinstance(module, KINDS) and any(type(module).forward is kind.forward for kind in KINDS)
    return plain and "weight" in module._parameters


def _whole(value: Any) -> tuple[int, ...]:
    return tuple(int(number) for number in value)
