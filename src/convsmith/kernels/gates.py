"""Channel attention: a factor per channel, computed from the whole map."""

from math import log2
from typing import final

import torch
from torch import Tensor, nn

from convsmith.errors import ConvsmithError


def adaptive_kernel(channels: int) -> int:
    """The kernel size of ECA for a width (Wang et al., CVPR 2020).

        t = int(|log2(C) + 1| / 2),   k = t where t is odd, else t + 1

    >>> [adaptive_kernel(channels) for channels in (16, 96, 128, 1024, 2048)]
    [3, 3, 5, 5, 7]
    """
    size = int(abs(log2(channels) + 1) / 2)
    return size if size % 2 else size + 1


@final
class Eca(nn.Module):
    """x sigmoid(Conv1d_k(GAP(x))), one filter of k weights along all channels (ECA-Net; Wang et al., CVPR 2020).

    kernel: odd; None takes `adaptive_kernel`. Raises ConvsmithError where it is even.

    >>> Eca(64).conv, Eca(64, kernel=7)(torch.zeros(2, 64, 5, 5)).shape
    (Conv1d(1, 1, kernel_size=(3,), stride=(1,), padding=(1,), bias=False), torch.Size([2, 64, 5, 5]))
    """

    def __init__(self, channels: int, kernel: int | None = None) -> None:
        super().__init__()
        size = adaptive_kernel(channels) if kernel is None else kernel
        if size < 1 or size % 2 == 0:
            raise ConvsmithError(f"ECA: the kernel must be odd, got {size}.")
        self.scale = 1.0
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        # (b, c, h, w) -> (b, 1, c) -> (b, c, 1, 1)
        pooled = x.mean((2, 3)).unsqueeze(1)
        gate = self.scale * torch.sigmoid(self.conv(pooled)).transpose(1, 2).unsqueeze(3)
        return x * gate

    def last(self) -> nn.Module:
        """The layer under the sigmoid."""
        return self.conv


@final
class ChannelGate(nn.Module):
    """sigmoid(W2 relu(W1 GAP(x))), a factor per output channel; W1, W2 pointwise on the pooled map."""

    def __init__(self, inputs: int, hidden: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, hidden, 1, bias=bias)
        self.act = nn.ReLU()
        self.expand = nn.Conv2d(hidden, outputs, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(b, inputs, h, w) -> (b, outputs, 1, 1)."""
        return torch.sigmoid(self.expand(self.act(self.reduce(x.mean((2, 3), keepdim=True)))))


@final
class SqueezeExcite(nn.Module):
    """x times its `ChannelGate` of C // ratio hidden channels (SE; Hu et al., CVPR 2018).

    >>> sum(p.numel() for p in SqueezeExcite(64, ratio=16).parameters())
    580
    """

    def __init__(self, channels: int, ratio: int = 16, bias: bool = True) -> None:
        super().__init__()
        self.scale = 1.0
        self.gate = ChannelGate(channels, max(channels // ratio, 1), channels, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        y: Tensor = x * (self.scale * self.gate(x))
        return y

    def last(self) -> nn.Module:
        """The layer under the sigmoid."""
        return self.gate.expand


def start_as_identity(gate: Eca | SqueezeExcite) -> None:
    """Make a gate the constant 2 sigmoid(0) = 1, from which it learns: put into a trained net, it changes nothing yet.

    >>> gate, x = Eca(8), torch.randn(1, 8, 4, 4)
    >>> start_as_identity(gate)
    >>> torch.equal(gate(x), x)
    True
    """
    gate.scale = 2.0
    for parameter in gate.last().parameters():
        nn.init.zeros_(parameter)
