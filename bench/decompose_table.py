"""What each form and method loses on made-up inputs, at equal MACs: `python bench/decompose_table.py`.

One 3x3 convolution of 64 to 64 channels; white, blurred, and blurred and channel-mixed inputs, and smooth filters on
these; fitted on 5,000 rows, judged on 5,000 others, three seeds. Writes bench/results/decompose_table.json.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor
from torch.nn import functional as F

from convsmith.algebra import Channel, DepthwiseFirst, FitRequest, Form, PointwiseFirst, Spatial, ThreeWay, Tucker, fit
from convsmith.algebra.second_moments import Moments, Statistics
from convsmith.environment import environment
from convsmith.files import write_text

RESULT = Path(__file__).parent / "results" / "decompose_table.json"
KINDS = ("white", "blurred", "blurred and mixed", "the same, smooth filters")
CHANNELS, ROWS, SEEDS = 64, 5000, 3


def blur(maps: Tensor) -> Tensor:
    """The mean of every 3 x 3 neighbourhood; two rows and columns are lost."""
    return F.avg_pool2d(maps, 3, 1)


def inputs(kind: str, channels: int, images: int, generator: torch.Generator) -> Tensor:
    """Maps (images, channels, 26, 26) of unit variance about."""
    latent = channels if kind in ("white", "blurred") else channels // 4
    drawn = torch.randn(images, latent, 28, 28, generator=generator)
    maps = drawn[..., 1:-1, 1:-1] if kind == "white" else 3 * blur(drawn)
    if latent == channels:
        return maps
    # Few causes behind many channels, and a little of their own: what trained nets' maps look like.
    mixing = torch.randn(channels, latent, generator=generator) / latent**0.5
    own = torch.randn(maps.shape[0], channels, *maps.shape[2:], generator=generator)
    return torch.einsum("cl,blhw->bchw", mixing, maps) + 0.1 * own


def filters(kind: str, channels: int, generator: torch.Generator) -> Tensor:
    """A weight (n, c, 9): independent taps, or combinations of four blurred kernels."""
    if kind != KINDS[3]:
        return torch.randn(channels, channels, 9, generator=generator)
    kernels = blur(torch.randn(4, 1, 5, 5, generator=generator)).flatten(1)
    return torch.randn(channels, channels, 4, generator=generator) @ kernels


def problem(kind: str, channels: int, rows: int, seed: int) -> tuple[Tensor, Statistics, Statistics]:
    """A weight, the moments to fit it on, and held-out ones from other images."""
    generator = torch.Generator().manual_seed(seed)
    weight = filters(kind, channels, generator)
    images = 1 + rows // 24**2
    maps = inputs(kind, channels, 2 * images, generator)
    moments = []
    for half in maps.split(images):
        patches = F.unfold(half, 3).transpose(1, 2).flatten(0, 1)  # (b, c k, l) -> (b l, c k)
        chosen = patches[torch.randperm(len(patches), generator=generator)[:rows]]
        moments.append(Moments(channels * 9, channels))
        moments[-1].add(chosen, chosen @ weight.flatten(1).T)
    fitted, held = (each.statistics() for each in moments)
    return weight, fitted, held


def entries(channels: int) -> Iterator[tuple[str, Form, str, bool]]:
    """Name, form, method and whether it sees the data, each at the MACs of a depthwise separable convolution."""
    macs = channels * (9 + channels)
    separable = DepthwiseFirst(1)
    yield "dw-pw svd", separable, "svd", False
    yield "dw-pw gsvd", separable, "gsvd", True
    yield "dw-pw compensated", separable, "compensated", True
    yield "dw-pw als", separable, "als", True
    yield "pw-dw svd", PointwiseFirst(1), "svd", False
    yield "pw-dw als", PointwiseFirst(1), "als", True
    yield "cp als, weights", ThreeWay(macs // (2 * channels + 9)), "als", False
    yield "cp als", ThreeWay(macs // (2 * channels + 9)), "als", True
    yield "channel svd", Channel(macs // (10 * channels)), "svd", False
    yield "channel gsvd", Channel(macs // (10 * channels)), "gsvd", True
    yield "spatial svd", Spatial(macs // (6 * channels), (3, 3)), "svd", False
    side = int((((2 * channels) ** 2 + 36 * macs) ** 0.5 - 2 * channels) / 18)  # 9 r^2 + 2 C r = MACs
    yield "tucker svd", Tucker(side, side), "svd", False


def errors(channels: int, rows: int, seed: int) -> dict[str, dict[str, float]]:
    """Held-out relative response error by entry and kind of input."""
    table: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        weight, fitted, held = problem(kind, channels, rows, seed)
        for name, form, method, data in entries(channels):
            found = fit(form, weight, FitRequest(method, fitted if data else None))
            table.setdefault(name, {})[kind] = held.error(form.compose(found.factors))
    return table


def main() -> None:
    drawn = [errors(CHANNELS, ROWS, seed) for seed in range(SEEDS)]
    table = {name: {kind: [each[name][kind] for each in drawn] for kind in KINDS} for name, *_ in entries(CHANNELS)}
    for name, kinds in table.items():
        print(f"{name:20}", *(f"{mean(values):.3f} ({stdev(values):.3f})" for values in kinds.values()), flush=True)
    rounded = {name: {kind: [round(v, 4) for v in kinds[kind]] for kind in KINDS} for name, kinds in table.items()}
    settings = {"channels": CHANNELS, "rows": ROWS, "seeds": list(range(SEEDS)), "kinds": KINDS}
    told = {"what": __doc__, **settings, "held_out_error": rounded, **environment()}
    write_text(RESULT, json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
