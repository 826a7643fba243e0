"""Sums, products, gates and normalizations."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specimens.base import Call, Join, Specimen, alone, aten, behind, conv, joined, own

GATE = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(kernel=1), nn.Sigmoid(), Call(torch.detach))
SAME = nn.Identity()


def gate(join: object) -> Specimen:
    return Specimen(Join(join, conv(padding=1), GATE))  # type: ignore[arg-type]


def both(join: object) -> Specimen:
    return Specimen(Join(join, conv(padding=1), SAME))  # type: ignore[arg-type]


def larger(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(a > b, a, b)


def lines(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Neither has the shape of their sum."""
    return a.mean(2, keepdim=True), b.mean(3, keepdim=True)


ELEMENTWISE = {
    "batch norm": Specimen(nn.Sequential(conv(), nn.BatchNorm2d(4))),
    "batch norm of the map": Specimen(nn.Sequential(conv(groups=2), nn.BatchNorm2d(4, track_running_stats=False))),
    "layer norm": behind(lambda x: F.layer_norm(x, (6,))),
    "layer norm over channels": behind(lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,))),
    "layer norm over all": behind(lambda x: F.layer_norm(x, (4, 7, 6))),
    "group norm": behind(lambda x: F.group_norm(x, 2)),
    "group norm, groups across": behind(lambda x: F.group_norm(x.roll(1, 1), 2)),
    "group norm of tokens": behind(lambda x: F.group_norm(x.flatten(2), 2)),
    "instance norm": behind(F.instance_norm),
    "instance norm, running": Specimen(nn.Sequential(conv(), nn.InstanceNorm2d(4, track_running_stats=True))),
    "root mean square norm": behind(lambda x: F.rms_norm(x.permute(0, 2, 3, 1), (4,))),
    "local response": behind(lambda x: F.local_response_norm(x, 3)),
    "softmax": behind(lambda x: x.softmax(1)),
    "softmax over the map": behind(lambda x: x.softmax(-1)),
    "log softmax": behind(lambda x: x.log_softmax(2)),
    "softmax, decomposed": behind(lambda x: aten._softmax.default(x, -2, False)),
    "log softmax, decomposed": behind(lambda x: aten._log_softmax.default(x, 1, False)),
    "cosine": joined(lambda a, b: torch.cosine_similarity(a, b)),
    "add": both(torch.add),
    "add broadcast": Specimen(Join(torch.add, SAME, nn.AdaptiveAvgPool2d(1))),
    "add both broadcast": joined(lambda a, b: torch.add(*lines(a, b))),
    "multiply both broadcast": joined(lambda a, b: torch.mul(*lines(a, b))),
    "add the transposed": Specimen(Join(torch.add, SAME, Call(lambda x: x.transpose(2, 3))), (4, 5, 5)),
    "add a smaller rank": joined(lambda a, b: a + b[0, 2]),
    "add what was padded": joined(lambda a, b: F.pad(a[:, :, 1:, 2:], (2, 0, 1, 0)) + b),
    "mix what was padded": Specimen(
        Join(lambda a, b: torch.cat([F.pad(a, (1, 1, 1, 1)), b], 1), conv(groups=4), conv(kernel=1)), (4, 5, 5)
    ),
    "mix what was padded, by channels": Specimen(
        nn.Sequential(
            Join(lambda a, b: torch.cat([F.pad(a, (1, 1, 1, 1)), b], 1), conv(groups=4), conv(kernel=1)),
            conv(8, 4, 1, groups=2),
        ),
        (4, 5, 5),
    ),
    "add in place": both(lambda a, b: a.clone().add_(b)),
    "subtract": Specimen(Join(torch.sub, conv(padding=1, groups=4), conv(kernel=1))),
    "subtract in place": both(lambda a, b: a.clone().sub_(b)),
    "subtract from": joined(lambda a, b: aten.rsub.Tensor(a, b)),
    "divide": joined(torch.div),
    "divide in place": both(lambda a, b: a.clone().div_(b)),
    "maximum": Specimen(Join(torch.maximum, conv(padding=1, groups=4), Call(lambda x: 2 * x)), draws=40),
    "minimum": Specimen(Join(torch.minimum, conv(padding=1, groups=4), Call(lambda x: 4 * x)), draws=40),
    "fmax": Specimen(Join(torch.fmax, conv(padding=1, groups=4), Call(lambda x: 2 * x)), draws=40),
    "fmin": Specimen(Join(torch.fmin, conv(padding=1, groups=4), Call(lambda x: 4 * x)), draws=40),
    "max of two": Specimen(Join(aten.max.other, conv(padding=1, groups=4), Call(lambda x: 2 * x)), draws=40),
    "min of two": Specimen(Join(aten.min.other, conv(padding=1, groups=4), Call(lambda x: 4 * x)), draws=40),
    "where": Specimen(Join(larger, conv(padding=1, groups=4), Call(lambda x: 2 * x)), draws=40),
    "angle": joined(torch.atan2),
    "sum of logarithms": joined(torch.logaddexp),
    "hypotenuse": joined(torch.hypot),
    "power": joined(torch.pow),
    "remainder": joined(lambda a, b: aten.fmod.Tensor(a, b + a)),
    "between": joined(lambda a, b: torch.lerp(a, b, 0.3)),
    "between, as told": joined(lambda a, b: torch.lerp(a, b, b.sigmoid())),
    "between in place": joined(lambda a, b: a.clone().lerp_(b, 0.3)),
    "between in place, as told": joined(lambda a, b: a.clone().lerp_(b, b.sigmoid())),
    "masked": behind(lambda x: x.masked_fill(own(7, 6) > 5, 0.1)),
    "masked in place": behind(lambda x: x.clone().masked_fill_(own(7, 6) > 5, 0.1)),
    "clamped by tensors": behind(lambda x: torch.clamp(x, own(7, 6) * 0, own(7, 6) * 1e3)),
    "multiply": joined(torch.mul),
    "multiply in place": both(lambda a, b: a.clone().mul_(b)),
    "add a product": joined(lambda a, b: torch.addcmul(own(4, 1, 1), a, b)),
    "add a product in place": joined(lambda a, b: a.clone().addcmul_(a, b)),
    "add a product with a gate": gate(lambda a, g: torch.addcmul(a, own(4, 1, 1), a * g)),
    "add a quotient": joined(lambda a, b: torch.addcdiv(own(4, 1, 1), a, b)),
    "add a quotient in place": joined(lambda a, b: a.clone().addcdiv_(a, b)),
    "gate": gate(torch.mul),
    "gate first": Specimen(Join(torch.mul, GATE, conv(padding=1))),
    "gate without a map": gate(lambda a, g: a.permute(0, 2, 3, 1) * g.flatten(1)),
    "gate of one number": gate(lambda a, g: a * g.mean()),
    "mask of the map": joined(lambda a, b: a * b.mean(1, keepdim=True)),
    "copied over": joined(lambda a, b: torch.zeros_like(a).copy_(b) + a),
    "copied over in part": behind(lambda x: torch.cat([x.clone().copy_(own(6)), x], 1)),
    "filled by the input": joined(lambda a, b: torch.cat([a.clone().fill_(b.sum()), a], 1)),
    "zeroed": joined(lambda a, b: a.clone().zero_() + b),
    "filled": joined(lambda a, b: torch.cat([a.clone().fill_(0.5), b], 1)),
    "zeros beside": behind(lambda x: torch.cat([torch.zeros_like(x), x, x.new_ones(1, 2, 7, 6)], 1)),
    "halves multiplied": behind(lambda x: F.glu(x, 1)),
    "parametric": Specimen(nn.Sequential(conv(), nn.PReLU(4))),
    "of its type": joined(lambda a, b: a.type_as(b)),
    "to its type": joined(lambda a, b: aten.to.other(a, b)),
    "without a gradient": alone(lambda x: x * x.detach()),
}
