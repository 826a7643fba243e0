"""Linear layers, matrix products and attention."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specimens.base import Call, Join, Specimen, alone, aten, behind, conv, joined, own


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def windows(x: Tensor) -> Tensor:
    """Tokens of windows of 2 x 3 in the batch, as window attention has them."""
    return x[:, :, :6].reshape(1, 4, 3, 2, 2, 3).permute(0, 2, 4, 3, 5, 1).reshape(6, 6, 4)


def heads(x: Tensor) -> Tensor:
    return tokens(x).unflatten(2, (2, 2)).transpose(1, 2)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: object) -> None:
        super().__init__()
        self.rnn = kind(4, 3, **options)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rnn(x[:, :, 0].transpose(1, 2))[0]
        return out


def pair(equation: str) -> Specimen:
    return joined(lambda a, b: torch.einsum(equation, a, b))


PRODUCTS = {
    "linear": Specimen(nn.Sequential(nn.Flatten(), nn.Linear(24, 5)), (2, 3, 4)),
    "linear on the last axis": Specimen(nn.Sequential(conv(), Call(lambda x: x.flatten(2)), nn.Linear(20, 3))),
    "linear on channels": Specimen(nn.Sequential(conv(), Call(lambda x: x.permute(0, 2, 3, 1)), nn.Linear(4, 3))),
    "linear with a weight of the input": joined(lambda a, b: F.linear(a.mean(1), b.sum((0, 2)))),
    "linear with a bias of the input": joined(lambda a, b: F.linear(a, own(5, 6), b.mean((0, 1, 2))[:5])),
    "linear with a vector": behind(lambda x: F.linear(x, own(6))),
    "matmul": joined(lambda a, b: a @ b.transpose(2, 3)),
    "matmul, own on the left": behind(lambda x: own(3, 7) @ x),
    "matmul, own on the right": behind(lambda x: x @ own(6, 2)),
    "matmul of other ranks": joined(lambda a, b: a @ b[0, 0].t()),
    "matmul with a vector": joined(lambda a, b: a @ b[0, 0, 0]),
    "matmul of a vector": joined(lambda a, b: a[0, 0, :, 0] @ b),
    "matmul in windows": behind(lambda x: windows(x) @ windows(x).transpose(1, 2)),
    "bmm": joined(lambda a, b: torch.bmm(a[0], b[0].transpose(1, 2))),
    "mm": joined(lambda a, b: torch.mm(a[0, 0], b[0, 1].t())),
    "mv": joined(lambda a, b: torch.mv(a[0, 0], b[0, 1, 2])),
    "dot": joined(lambda a, b: torch.dot(a[0, 0, 1], b[0, 1, 2])),
    "addmm": joined(lambda a, b: torch.addmm(own(7), a[0, 0], b[0, 1].t())),
    "addmm to the input": joined(lambda a, b: torch.addmm(a[0, 2, :, :1], a[0, 0], b[0, 1].t())),
    "baddbmm": joined(lambda a, b: torch.baddbmm(own(1, 7, 7), a[0], b[0].transpose(1, 2))),
    "einsum of pairs": pair("bchw,bdhw->bcd"),
    "einsum of lines": pair("bchw,bcvw->bhcv"),
    "einsum, nothing summed": pair("bchw,bchw->bwhc"),
    "einsum, outer": pair("bchw,bdvw->bwcdhv"),
    "einsum, dots": pair("...hw,...vw->...hv"),
    "einsum, sorted": pair("bchw,bdhv"),
    "einsum with own": behind(lambda x: torch.einsum("bchw,cd->bdhw", x, own(4, 3))),
    "einsum of one": behind(lambda x: torch.einsum("bchw->bwc", x)),
    "einsum of three": joined(lambda a, b: torch.einsum("bchw,bchv,cd->bdwv", a, b, own(4, 3))),
    "attention": behind(lambda x: F.scaled_dot_product_attention(tokens(x), tokens(x) * 2, tokens(x) + 1)),
    "attention of heads": behind(lambda x: F.scaled_dot_product_attention(heads(x), heads(x) * 2, heads(x) + 1)),
    "attention in windows": behind(lambda x: F.scaled_dot_product_attention(windows(x), windows(x), windows(x))),
    "attention to others": joined(lambda a, b: F.scaled_dot_product_attention(tokens(a)[:, :3], tokens(b), tokens(b))),
    "attention, masked by the input": joined(
        lambda a, b: F.scaled_dot_product_attention(a[0], own(4, 7, 6), own(4, 7, 6), b[0] @ own(6, 7))
    ),
    "attention, causal": behind(
        lambda x: F.scaled_dot_product_attention(tokens(x), tokens(x), tokens(x), is_causal=True), bound=True
    ),
    "attention of shared heads": behind(
        lambda x: F.scaled_dot_product_attention(
            torch.cat([heads(x), heads(x)], 1), heads(x), heads(x), enable_gqa=True
        )
    ),
    "long memory": Specimen(Recurrent(nn.LSTM, bidirectional=True, batch_first=True), bound=True),
    "gated memory": Specimen(Recurrent(nn.GRU), bound=True),
    "memory": Specimen(Recurrent(nn.RNN, batch_first=True), bound=True),
    "memory, rectified": Specimen(Recurrent(nn.RNN, batch_first=True, nonlinearity="relu"), bound=True),
    "written out": alone(lambda x: aten.mm.default(x.flatten(2)[0].t(), own(4, 3)), 4, 2, 3),
    "two inputs' products": Specimen(
        Join(lambda a, b: (a.flatten(2) @ b.flatten(2).transpose(1, 2)).flatten(1), conv(), conv())
    ),
}
