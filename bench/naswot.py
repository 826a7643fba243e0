"""NASWOT: how differently a fresh net's ReLUs answer to the images of one batch (Mellor et al., ICML 2021).

Every image has a code, one bit a ReLU; the score is the logarithm of the determinant of the matrix that counts for each
two images the ReLUs they agree in. One forward pass, no labels; the images here are noise, so that no data is needed.
"""

import torch
from torch import Tensor, nn

from macro_nets import INPUT, macro_net

IMAGES = 32


def naswot_of(digits: str, seed: int) -> float:
    """The score of a net of NAS-Bench-Macro, with weights and images of this seed."""
    torch.manual_seed(seed)
    images = torch.randn(IMAGES, *INPUT)
    return naswot(macro_net(digits, device="cpu").train(), images)


@torch.no_grad()
def naswot(net: nn.Module, images: Tensor) -> float:
    """The score of one net; BatchNorm normalizes by the batch, as in training.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> naswot(net, torch.zeros(2, 3, 8, 8)) < naswot(net, torch.randn(2, 3, 8, 8))
    True
    """
    agreed = torch.zeros(len(images), len(images), dtype=torch.float64)

    def count(module: nn.Module, args: object, out: Tensor) -> None:
        bits = (out > 0).flatten(1).float()
        agreed.add_((bits @ bits.T + (1 - bits) @ (1 - bits).T).double())

    hooks = [module.register_forward_hook(count) for module in net.modules() if isinstance(module, nn.ReLU)]
    net(images)
    for hook in hooks:
        hook.remove()
    sign, logarithm = torch.linalg.slogdet(agreed)
    return float(logarithm) if sign > 0 else -float("inf")
