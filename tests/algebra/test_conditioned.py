"""Conditioned moments: products without a copy against the copy, and what few samples change."""

import pytest
import torch
from torch import Tensor

from convsmith.algebra.conditioned import RIDGE, Conditioned
from convsmith.algebra.second_moments import Moments, Statistics

N, C, K = 5, 21, 4


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def measured(samples: int, dead: int | None = None) -> tuple[Tensor, Statistics]:
    """A weight (N, C K), and moments of correlated patches and what it answers to them."""
    weight, x = normal(N, C * K, seed=1), normal(samples, C * K) @ normal(C * K, C * K, seed=2)
    if dead is not None:
        x.view(-1, C, K)[:, dead] = 0
    seen = Moments(C * K, N)
    seen.add(x, x @ weight.T)
    return weight, seen.statistics()


@pytest.mark.parametrize("samples", [30, 300, 10**5])
@pytest.mark.parametrize("dead", [None, 3])
def test_every_product_is_that_of_the_copy(samples: int, dead: int | None) -> None:
    weight, statistics = measured(samples, dead)
    seen = Conditioned.of(statistics, weight, C)
    by_channels = seen.gram.view(C, K, C, K)
    filters = normal(C, 2, K, seed=3)
    torch.testing.assert_close(seen.through(filters), torch.einsum("crk,ckdl->crdl", filters, by_channels))
    firsts, strips = zip(*seen.strips(), strict=True)
    assert firsts == (0, 16)
    torch.testing.assert_close(torch.cat(strips), by_channels)
    torch.testing.assert_close(torch.stack([by_channels[c, :, c] for c in range(C)]), seen.blocks)
    torch.linalg.cholesky(seen.gram)


@pytest.mark.parametrize("samples", [30, 300])
def test_the_responses_are_those_that_the_weight_gives_to_such_inputs(samples: int) -> None:
    weight, statistics = measured(samples)
    seen = Conditioned.of(statistics, weight, C)
    # at its own weight nothing is missed, before and after
    torch.testing.assert_close(seen.cross, (weight @ seen.gram).T)
    torch.testing.assert_close(seen.energy, (weight @ seen.gram * weight).sum(1))


def test_less_is_taken_from_between_channels_the_more_samples_there_are() -> None:
    kept = []
    for samples in (30, 300, 3000, 10**6):
        weight, statistics = measured(samples)
        seen = Conditioned.of(statistics, weight, C)
        own, told = (each.view(C, K, C, K).diagonal(dim1=0, dim2=2) for each in (statistics.gram, seen.gram))
        kept.append(seen.kept.item())
        torch.testing.assert_close(told, own, rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(seen.gram[:K, K:], kept[-1] * statistics.gram[:K, K:])
    assert kept == sorted(kept)
    assert kept[0] < 0.9
    assert kept[-1] > 0.999


def test_what_is_independent_is_taken_for_it() -> None:
    x = normal(2000, C * K)
    seen = Moments(C * K, N)
    seen.add(x, x[:, :N])
    assert Conditioned.of(seen.statistics(), normal(N, C * K), C).kept < 0.1


def test_every_channel_is_alive() -> None:
    weight, statistics = measured(300, dead=3)
    blocks = Conditioned.of(statistics, weight, C).blocks
    assert statistics.gram.view(C, K, C, K)[3].eq(0).all()
    variance = blocks.diagonal(dim1=1, dim2=2).mean(1)
    assert 0 < variance[3] < RIDGE * variance.mean()
