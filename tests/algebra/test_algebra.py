"""Fits to weights alone against a loop of plain SVDs, their laws, and what the one way in refuses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from convsmith.algebra import (
    METHODS,
    Channel,
    DepthwiseFirst,
    Fit,
    FitRequest,
    Form,
    PointwiseFirst,
    Spatial,
    ThreeWay,
    Tucker,
    fit,
    fits,
    relative_error,
)
from convsmith.algebra.second_moments import Rows, Statistics
from convsmith.errors import ConvsmithError

SHAPES = [(8, 4, 9), (4, 8, 9), (5, 7, 3), (3, 4, 25), (16, 4, 2), (1, 4, 9)]  # (N, C, K)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def best_error(matrices: Tensor, rank: int, total: float) -> float:
    """Eckart-Young, one matrix at a time: the singular values left out, against the norm of the whole."""
    left_out = [np.linalg.svd(each, compute_uv=False)[rank:] for each in matrices.double().numpy()]
    return float(np.sqrt(sum((values**2).sum() for values in left_out)) / total)


def made(form: Form, found: Fit) -> Tensor:
    return form.compose(tuple(factor.double() for factor in found.factors))


# --- closed forms against numpy ---


@pytest.mark.parametrize("shape", SHAPES)
def test_depthwise_first_is_the_best_of_each_input_channel(shape: tuple[int, int, int]) -> None:
    weight, (n, c, k) = normal(*shape), shape
    for rank in range(1, min(n, k) + 1):
        found = fit(DepthwiseFirst(rank), weight)
        assert [factor.shape for factor in found.factors] == [(c, rank, k), (n, c, rank)]
        assert found.error == pytest.approx(best_error(weight.transpose(0, 1), rank, weight.norm().item()), abs=2e-7)
        assert found.error == pytest.approx(relative_error(weight, made(DepthwiseFirst(rank), found)))
    assert found.error < 2e-7


@pytest.mark.parametrize("shape", SHAPES)
def test_pointwise_first_is_the_best_of_each_output_channel(shape: tuple[int, int, int]) -> None:
    weight, (n, c, k) = normal(*shape), shape
    for rank in range(1, min(c, k) + 1):
        found = fit(PointwiseFirst(rank), weight)
        assert [factor.shape for factor in found.factors] == [(n, rank, c), (n, rank, k)]
        assert found.error == pytest.approx(best_error(weight, rank, weight.norm().item()), abs=2e-7)
    assert found.error < 2e-7


@pytest.mark.parametrize("shape", SHAPES)
def test_channel_decomposition_is_the_best_low_rank_of_the_matrix(shape: tuple[int, int, int]) -> None:
    weight = normal(*shape)
    for rank in range(1, min(shape[0], shape[1] * shape[2]) + 1):
        error = fit(Channel(rank), weight).error
        assert error == pytest.approx(best_error(weight.flatten(1)[None], rank, weight.norm().item()), abs=2e-7)
    assert error < 2e-7


@pytest.mark.parametrize(("shape", "kernel"), [((8, 4, 9), (3, 3)), ((4, 6, 6), (2, 3)), ((5, 3, 20), (5, 4))])
def test_spatial_decomposition_is_the_best_low_rank_between_rows_and_columns(
    shape: tuple[int, int, int], kernel: tuple[int, int]
) -> None:
    weight = normal(*shape)
    matrix = weight.view(*shape[:2], *kernel).permute(1, 2, 0, 3).flatten(2).flatten(0, 1)
    for rank in range(1, min(matrix.shape) + 1):
        error = fit(Spatial(rank, kernel), weight).error
        assert error == pytest.approx(best_error(matrix[None], rank, weight.norm().item()), abs=2e-7)
    assert error < 2e-7


def test_tucker_keeps_what_a_random_basis_does_not_and_all_at_full_rank() -> None:
    weight = normal(8, 6, 9)
    assert fit(Tucker(6, 8), weight).error < 1e-6
    found = fit(Tucker(3, 4), weight)
    for seed in range(20):
        b, a = (torch.linalg.qr(normal(size, rank, seed=seed))[0] for size, rank in ((6, 3), (8, 4)))
        core = torch.einsum("nck,ns,cr->srk", weight, a, b)
        assert found.error < relative_error(weight, Tucker(3, 4).compose((b.T, core, a)))
    hidden = Tucker(3, 4).compose((normal(3, 6), normal(4, 3, 9), normal(8, 4)))
    assert fit(Tucker(3, 4), hidden).error < 1e-6


# --- the three-way form, which has no closed one ---


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_three_way_finds_a_hidden_decomposition(rank: int) -> None:
    form = ThreeWay(rank)
    weight = form.compose((normal(rank, 6), normal(rank, 9, seed=1), normal(8, rank, seed=2)))
    assert fit(form, weight, FitRequest("als")).error < 1e-3


def test_three_way_is_exact_with_the_pairs_of_the_smaller_dimensions() -> None:
    assert fit(ThreeWay(4 * 3), normal(8, 4, 3), FitRequest("als")).error < 1e-3


def test_three_way_falls_with_the_rank_and_contains_the_separable_form() -> None:
    weight = normal(8, 6, 9)
    errors = [fit(ThreeWay(rank), weight, FitRequest("als")).error for rank in (1, 2, 4, 6, 16)]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < fit(DepthwiseFirst(1), weight).error


# --- laws ---

EACH = [DepthwiseFirst(2), PointwiseFirst(2), ThreeWay(5), Channel(3), Spatial(3, (3, 3)), Tucker(3, 3)]
each_form = pytest.mark.parametrize("form", EACH, ids=lambda form: form.name)


def method(form: Form) -> str:
    return "als" if isinstance(form, ThreeWay) else "svd"


def test_the_scale_is_split_evenly() -> None:
    depthwise, pointwise = fit(DepthwiseFirst(3), normal(8, 4, 9)).factors
    torch.testing.assert_close(pointwise.norm(dim=0), depthwise.norm(dim=2))
    pointwise, depthwise = fit(PointwiseFirst(3), normal(8, 4, 9)).factors
    torch.testing.assert_close(pointwise.norm(dim=2), depthwise.norm(dim=2))
    b, d, a = fit(ThreeWay(3), normal(8, 4, 9), FitRequest("als")).factors
    torch.testing.assert_close(b.norm(dim=1), d.norm(dim=1))
    torch.testing.assert_close(b.norm(dim=1), a.norm(dim=0))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 9), st.integers(0, 99))
def test_the_error_falls_with_the_rank_and_ignores_the_scale(n: int, c: int, k: int, seed: int) -> None:
    weight = normal(n, c, k, seed=seed)
    errors = [fit(DepthwiseFirst(rank), weight).error for rank in range(1, min(n, k) + 1)]
    assert errors == sorted(errors, reverse=True)
    assert fit(DepthwiseFirst(1), weight * 1e-3).error == pytest.approx(errors[0], abs=1e-6)


def test_a_mask_keeps_the_best_of_what_is_connected_and_counts_the_rest_as_lost() -> None:
    weight = normal(6, 4, 9)
    mask = normal(6, 4, seed=1) > 0
    form = DepthwiseFirst(1, mask)
    found = fit(form, weight)
    lost, total = (weight * ~mask[..., None]).norm().item(), weight.norm().item()
    tail = best_error((weight * mask[..., None]).transpose(0, 1), 1, total)
    assert 0 < mask.sum() < mask.numel()
    assert found.factors[1][~mask].eq(0).all()
    assert found.error == pytest.approx(np.hypot(lost / total, tail), abs=1e-6)
    assert found.error == pytest.approx(relative_error(weight, made(form, found)))


@each_form
def test_order_of_channels_does_not_matter(form: Form) -> None:
    weight, order = normal(6, 4, 9), torch.tensor([2, 0, 3, 1])
    near = 0.02 if isinstance(form, ThreeWay) else 1e-6  # the random starts are not permuted with it
    assert fit(form, weight[:, order], FitRequest(method(form))).error == pytest.approx(
        fit(form, weight, FitRequest(method(form))).error, rel=near
    )


@each_form
def test_dead_channels_give_zeros(form: Form) -> None:
    weight = normal(6, 4, 9)
    weight[:, 1], weight[2] = 0, 0
    found = fit(form, weight, FitRequest(method(form)))
    assert all(factor.isfinite().all() for factor in found.factors)
    torch.testing.assert_close(made(form, found)[:, 1], torch.zeros(6, 9).double(), atol=1e-2, rtol=0)
    assert 0 < found.error < 1


@each_form
def test_a_weight_of_zeros_has_no_error(form: Form) -> None:
    found = fit(form, torch.zeros(6, 4, 9), FitRequest(method(form)))
    assert found.error == 0
    assert made(form, found).eq(0).all()


@pytest.mark.parametrize(
    ("dtype", "exact"), [(torch.float64, 1e-14), (torch.float32, 2e-7), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)]
)
def test_factors_keep_the_type_and_the_error_includes_its_rounding(dtype: torch.dtype, exact: float) -> None:
    weight, form = normal(6, 4, 9).to(dtype), DepthwiseFirst(6)
    found = fit(form, weight)
    assert all(factor.dtype == dtype for factor in found.factors)
    assert exact / 100 < found.error < exact
    assert found.error == relative_error(weight, made(form, found))


@each_form
def test_the_weight_is_left_alone_and_a_fit_repeats(form: Form) -> None:
    weight = normal(6, 4, 9).requires_grad_()
    found, again = (fit(form, weight, FitRequest(method(form))) for _ in range(2))
    assert torch.equal(weight, normal(6, 4, 9))
    assert not any(factor.requires_grad for factor in found.factors)
    assert all(map(torch.equal, found.factors, again.factors))


# --- refusals ---

STATISTICS = Statistics.of_weight(normal(6, 4, 9))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_refuses_numbers_that_are_not_finite(bad: float) -> None:
    weight, statistics = normal(6, 4, 9), Statistics.of_weight(normal(6, 4, 9))
    weight[1, 2, 3], statistics.cross[1, 2] = bad, bad
    for form in EACH:
        with pytest.raises(ConvsmithError, match="The weight to decompose holds NaN or infinity; load a sound"):
            fit(form, weight, FitRequest(method(form)))
    with pytest.raises(ConvsmithError, match="The statistics hold NaN or infinity; check the calibration data"):
        fit(DepthwiseFirst(1), normal(6, 4, 9), FitRequest("gsvd", statistics))


@pytest.mark.parametrize("rank", [0, -1, 7])
def test_refuses_a_rank_out_of_range(rank: int) -> None:
    with pytest.raises(ValueError, match=f"rank {rank} is outside 1 to 6"):
        fit(DepthwiseFirst(rank), normal(6, 4, 9))


@pytest.mark.parametrize(
    ("form", "name", "told"),
    [
        (DepthwiseFirst(1), "svt", "Unknown decomposition method 'svt'; did you mean"),
        (ThreeWay(1), "svd", "svd does not fit cp; choose from KNOWN."),
        (PointwiseFirst(1), "compensated", "compensated does not fit pw-dw; choose from KNOWN."),
        (Spatial(1, (3, 3)), "compensated", "compensated does not fit spatial; choose from KNOWN."),
        (Tucker(1, 1), "gsvd", "gsvd does not fit tucker; choose from KNOWN."),
    ],
)
def test_refuses_a_method_that_does_not_know_the_form(form: Form, name: str, told: str) -> None:
    known = ", ".join(sorted(method for method, table in METHODS.items() if type(form) in table))
    with pytest.raises(ConvsmithError) as mistake:
        fit(form, normal(6, 4, 9), FitRequest(name, STATISTICS))
    assert str(mistake.value).startswith(told.replace("KNOWN", known))


@pytest.mark.parametrize(
    ("form", "name"),
    [
        (form, name)
        for name in ("gsvd", "compensated", "als")
        for form in EACH
        if type(form) in METHODS[name] and not isinstance(form, ThreeWay)
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_refuses_to_fit_responses_without_data(form: Form, name: str) -> None:
    with pytest.raises(ConvsmithError, match="needs data; give calibration data, or use svd"):
        fit(form, normal(6, 4, 9), FitRequest(name))


def test_refuses_statistics_of_another_layer() -> None:
    told = "The statistics are of 36x6 patches and responses, the weight needs 36x5; calibrate"
    with pytest.raises(ConvsmithError, match=told):
        fit(DepthwiseFirst(1), normal(5, 4, 9), FitRequest("svd", STATISTICS))


def test_refuses_rows_without_statistics() -> None:
    with pytest.raises(ConvsmithError, match="Rows refine a fit to statistics"):
        fit(DepthwiseFirst(1), normal(6, 4, 9), FitRequest(rows=Rows(normal(5, 36), normal(5, 6))))


def test_refuses_to_register_a_method_twice() -> None:
    with pytest.raises(ValueError, match="svd of dw-pw is registered twice"):
        fits("svd", DepthwiseFirst)(lambda form, target: ())


def test_the_table_is_what_the_documentation_says() -> None:
    ours = {
        "svd": {"dw-pw", "pw-dw", "channel", "spatial", "tucker"},
        "gsvd": {"dw-pw", "pw-dw", "channel", "spatial"},
        "compensated": {"dw-pw"},
        "als": {"dw-pw", "pw-dw", "cp", "channel", "spatial", "tucker", "seq"},
        "tensorly": {"cp", "tucker"},
    }
    assert ours == {name: {form.name for form in METHODS[name]} for name in ours}  # others: tests/testing
