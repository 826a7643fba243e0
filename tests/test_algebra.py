"""The closed forms against a loop of plain SVDs, their laws, and what they refuse."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from convsmith.algebra import METHODS, Separable, relative_error, svd_input_wise, svd_output_wise
from convsmith.errors import ConvsmithError

SHAPES = [(8, 4, 9), (4, 8, 9), (5, 7, 3), (3, 4, 25), (16, 4, 2), (1, 4, 9)]  # (N, C, K)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def best_error(matrices: Tensor, rank: int, total: float) -> float:
    """Eckart-Young, one matrix at a time: the singular values left out, against the norm of the whole."""
    left_out = [np.linalg.svd(each, compute_uv=False)[rank:] for each in matrices.double().numpy()]
    return float(np.sqrt(sum((values**2).sum() for values in left_out)) / total)


def rebuilt_input_wise(fit: Separable) -> Tensor:
    return torch.einsum("ncr,crk->nck", fit.pointwise.double(), fit.depthwise.double())


def rebuilt_output_wise(fit: Separable) -> Tensor:
    return torch.einsum("ncr,nrk->nck", fit.pointwise.double(), fit.depthwise.double())


@pytest.mark.parametrize("shape", SHAPES)
def test_input_wise_is_the_best_of_each_input_channel(shape: tuple[int, int, int]) -> None:
    weight = normal(*shape)
    for rank in range(1, min(shape[0], shape[2]) + 1):
        fit = svd_input_wise(weight, rank)
        assert fit.depthwise.shape == (shape[1], rank, shape[2])
        assert fit.pointwise.shape == (shape[0], shape[1], rank)
        assert fit.error == pytest.approx(best_error(weight.transpose(0, 1), rank, weight.norm().item()), abs=2e-7)
        assert fit.error == pytest.approx(relative_error(weight, rebuilt_input_wise(fit)))
    assert fit.error < 2e-7


@pytest.mark.parametrize("shape", SHAPES)
def test_output_wise_is_the_best_of_each_output_channel(shape: tuple[int, int, int]) -> None:
    weight = normal(*shape)
    for rank in range(1, min(shape[1], shape[2]) + 1):
        fit = svd_output_wise(weight, rank)
        assert fit.depthwise.shape == (shape[0], rank, shape[2])
        assert fit.pointwise.shape == (shape[0], shape[1], rank)
        assert fit.error == pytest.approx(best_error(weight, rank, weight.norm().item()), abs=2e-7)
        assert fit.error == pytest.approx(relative_error(weight, rebuilt_output_wise(fit)))
    assert fit.error < 2e-7


def test_the_scale_is_split_evenly() -> None:
    fit = svd_input_wise(normal(8, 4, 9), 3)
    torch.testing.assert_close(fit.pointwise.norm(dim=0), fit.depthwise.norm(dim=2))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 9), st.integers(0, 99))
def test_the_error_falls_with_the_rank_and_ignores_the_scale(n: int, c: int, k: int, seed: int) -> None:
    weight = normal(n, c, k, seed=seed)
    errors = [svd_input_wise(weight, rank).error for rank in range(1, min(n, k) + 1)]
    assert errors == sorted(errors, reverse=True)
    assert svd_input_wise(weight * 1e-3, 1).error == pytest.approx(errors[0], abs=1e-6)


def test_a_mask_keeps_the_best_of_what_is_connected_and_counts_the_rest_as_lost() -> None:
    weight = normal(6, 4, 9)
    mask = normal(6, 4, seed=1) > 0
    fit = svd_input_wise(weight, 1, mask)
    lost, total = (weight * ~mask[..., None]).norm().item(), weight.norm().item()
    tail = best_error((weight * mask[..., None]).transpose(0, 1), 1, total)
    assert 0 < mask.sum() < mask.numel()
    assert fit.pointwise[~mask].eq(0).all()
    assert fit.error == pytest.approx(np.hypot(lost / total, tail), abs=1e-6)
    assert fit.error == pytest.approx(relative_error(weight, rebuilt_input_wise(fit)))


def test_dead_channels_give_zeros() -> None:
    weight = normal(6, 4, 9)
    weight[:, 1], weight[2] = 0, 0
    for fit, dead in (
        (svd_input_wise(weight, 2), svd_input_wise(weight, 2).depthwise[1]),
        (svd_output_wise(weight, 2), svd_output_wise(weight, 2).depthwise[2]),
        (svd_input_wise(weight, 2, torch.zeros(6, 4, dtype=torch.bool)), torch.zeros(1)),
    ):
        assert fit.depthwise.isfinite().all()
        assert fit.pointwise.isfinite().all()
        assert dead.eq(0).all()


def test_a_weight_of_zeros_has_no_error() -> None:
    fit = svd_input_wise(torch.zeros(6, 4, 9), 1)
    assert (fit.error, fit.depthwise.abs().sum().item(), fit.pointwise.abs().sum().item()) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("dtype", "exact"), [(torch.float64, 1e-14), (torch.float32, 2e-7), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)]
)
def test_factors_keep_the_type_and_the_error_includes_its_rounding(dtype: torch.dtype, exact: float) -> None:
    weight = normal(6, 4, 9).to(dtype)
    fit = svd_input_wise(weight, 6)
    assert fit.depthwise.dtype == fit.pointwise.dtype == dtype
    assert exact / 100 < fit.error < exact
    assert fit.error == relative_error(weight, rebuilt_input_wise(fit))


def test_the_weight_is_left_alone() -> None:
    weight = normal(6, 4, 9).requires_grad_()
    fit = METHODS["svd"].output_wise(weight, 1)
    assert torch.equal(weight, normal(6, 4, 9))
    assert not fit.depthwise.requires_grad


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_refuses_a_weight_that_is_not_finite(bad: float) -> None:
    weight = normal(6, 4, 9)
    weight[1, 2, 3] = bad
    for fit in (svd_input_wise, svd_output_wise):
        with pytest.raises(ConvsmithError, match="holds NaN or infinity"):
            fit(weight, 1)


@pytest.mark.parametrize("rank", [0, -1, 7])
def test_refuses_a_rank_out_of_range(rank: int) -> None:
    with pytest.raises(ValueError, match=f"rank {rank} is outside 1 to 6"):
        svd_input_wise(normal(6, 4, 9), rank)


def test_refuses_an_unknown_method() -> None:
    with pytest.raises(ConvsmithError, match=r"Unknown decomposition method 'svt'; did you mean svd\?"):
        METHODS["svt"]
