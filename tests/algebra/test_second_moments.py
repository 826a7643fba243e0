"""Second moments against numpy's covariance, their laws, and inputs that give a covariance trouble."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from convsmith.algebra import DepthwiseFirst, FitRequest, fit
from convsmith.algebra.second_moments import Moments, Statistics

PARTS = ("gram", "cross", "energy", "mean_x", "mean_y", "size_x")


def rows(samples: int = 200, inputs: int = 6, outputs: int = 3, mean: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, inputs, generator=generator, dtype=torch.float64) + mean
    y = x @ torch.randn(inputs, outputs, generator=generator, dtype=torch.float64)
    return x, y + torch.randn(samples, outputs, generator=generator, dtype=torch.float64) + 5


def moments(x: Tensor, y: Tensor, chunk: int = 1000) -> Moments:
    seen = Moments(x.shape[1], y.shape[1])
    for part in zip(x.split(chunk), y.split(chunk), strict=True):
        seen.add(*part)
    return seen


def same(one: Statistics, other: Statistics, near: float = 1e-10) -> None:
    assert one.samples == other.samples
    for part in PARTS:
        torch.testing.assert_close(getattr(one, part), getattr(other, part), rtol=near, atol=near)


@pytest.mark.parametrize("chunk", [1, 7, 199, 1000])
@pytest.mark.parametrize("mean", [0.0, 2.0, 1e3])
def test_moments_are_the_covariance_in_any_chunks(mean: float, chunk: int) -> None:
    x, y = rows(mean=mean)
    told = moments(x, y, chunk).statistics()
    whole = np.cov(np.hstack([x, y]), rowvar=False, bias=True)
    np.testing.assert_allclose(told.gram, whole[:6, :6], atol=1e-9)
    np.testing.assert_allclose(told.cross, whole[:6, 6:], atol=1e-9)
    np.testing.assert_allclose(told.energy, whole.diagonal()[6:], atol=1e-9)
    np.testing.assert_allclose(told.mean_x, x.mean(0))
    np.testing.assert_allclose(told.mean_y, y.mean(0))
    np.testing.assert_allclose(told.size_x, x.abs().mean(0))
    assert told.samples == 200


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_active_rows_are_counted_at_any_size(size: float) -> None:
    x, y = torch.zeros(200, 3), torch.ones(200, 1)
    x[:5, 0], x[:100:2, 1] = size, -size
    assert moments(x, y).statistics().active.tolist() == pytest.approx([5, 50, 0], rel=1e-4)


def test_uncentred_moments_are_those_of_the_rows_themselves() -> None:
    x, y = rows()
    told = moments(x, y).statistics().uncentred()
    np.testing.assert_allclose(told.gram, x.T @ x / 200)
    np.testing.assert_allclose(told.cross, x.T @ y / 200)
    np.testing.assert_allclose(told.energy, y.square().mean(0))
    assert not told.mean_x.any()
    assert not told.mean_y.any()


def test_a_weight_knows_its_own_statistics() -> None:
    x, _ = rows()
    weight = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(1))
    answers = x @ weight.double().flatten(1).T + 4
    told = moments(x, answers.bfloat16()).statistics()
    assert told.answers(weight)
    assert not told.answers(weight * 1.2)
    assert not told.answers(weight.flip(0))
    dead = moments(torch.zeros_like(x), torch.zeros_like(answers)).statistics()
    assert dead.answers(weight)


def test_small_products_and_strips_are_the_covariance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convsmith.algebra.second_moments.ROWS", 7)
    monkeypatch.setattr("convsmith.algebra.second_moments.BLOCK", 4)
    x, y = rows(inputs=10)
    told = moments(x, y).statistics()
    whole = np.cov(np.hstack([x, y]), rowvar=False, bias=True)
    np.testing.assert_allclose(told.gram, whole[:10, :10], atol=1e-9)
    np.testing.assert_allclose(told.cross, whole[:10, 10:], atol=1e-9)
    assert torch.equal(told.gram, told.gram.T)


def test_summed_tensors_are_one_pass() -> None:
    x, y = rows()
    whole, first, second = moments(x, y).statistics(), moments(x[:50], y[:50]), moments(x[50:], y[50:])
    summed = Moments(6, 3)
    for total, *parts in zip(summed.sums, first.sums, second.sums, strict=True):
        total += sum(parts)
    same(summed.statistics(), whole)


def test_statistics_take_the_sums_with_them() -> None:
    x, y = rows()
    seen = moments(x, y)
    first = seen.statistics()
    with pytest.raises(ValueError, match="no rows have been added"):
        seen.statistics()
    seen.add(x[:50], y[:50])
    same(seen.statistics(), moments(x[:50], y[:50]).statistics())
    same(first, moments(x, y).statistics())


@pytest.mark.parametrize("mean", [0.0, 2.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_rows_lose_next_to_nothing(dtype: torch.dtype, mean: float) -> None:
    x, y = (each.to(dtype) for each in rows(5000, mean=mean))
    same(moments(x, y).statistics(), moments(x.double(), y.double()).statistics(), 1e-5)


def test_products_are_of_float64_where_those_of_float32_are_something_less(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = (each.float() for each in rows(5000))
    exact = moments(x.double(), y.double()).statistics()
    with pytest.raises(AssertionError):
        same(moments(x, y).statistics(), exact)
    monkeypatch.setattr("torch.get_float32_matmul_precision", lambda: "medium")
    same(moments(x, y).statistics(), exact)


class Largest(TorchDispatchMode):
    """Records the sizes in bytes of all tensors that calls answer, by the memory that they lie in."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[int, int] = {}
        self._kept: list[Tensor] = []  # so that no address is used twice

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        answer = func(*args, **(kwargs or {}))
        for each in filter(lambda x: isinstance(x, Tensor), answer if isinstance(answer, tuple | list) else [answer]):
            self.found[each.untyped_storage().data_ptr()] = each.untyped_storage().nbytes()
            self._kept.append(each)
        return answer


def test_one_gram_matrix_is_all_that_moments_and_a_fit_to_them_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convsmith.algebra.second_moments.BLOCK", 64)
    x, whole = torch.randn(200, 64 * 9), 8 * (64 * 9) ** 2
    weight = torch.randn(16, 64, 9)
    seen = Moments(64 * 9, 16)
    with Largest() as added:
        for part in x.split(50):
            seen.add(part, part @ weight.flatten(1).T)
    with Largest() as told:
        statistics = seen.statistics()
    with Largest() as fitted:
        fit(DepthwiseFirst(1), weight, FitRequest("als", statistics))
    assert [max(each.found.values()) for each in (added, told)] == [whole, whole]
    gram = statistics.gram.untyped_storage().data_ptr()
    for each in (added, told, fitted):
        each.found.pop(gram, None)
        assert max(each.found.values()) <= whole / 4


def test_error_and_bias_are_those_of_the_responses() -> None:
    x, y = rows()
    told, weight = moments(x, y).statistics(), torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(1))
    made = x @ weight.double().flatten(1).T + told.bias(weight)
    torch.testing.assert_close(made.mean(0), y.mean(0))
    missed = ((y - made).square().sum() / (y - y.mean(0)).square().sum()).sqrt().item()
    assert told.error(weight) == pytest.approx(missed)


def test_without_data_the_error_is_that_of_the_weight() -> None:
    weight = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    told = Statistics.of_weight(weight)
    other = weight * (torch.arange(5) > 1)[:, None, None]
    assert told.error(other) == pytest.approx(((weight - other).norm() / weight.norm()).item())
    assert told.error(weight) < 1e-7
    assert told.bias(other).eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_constant_has_no_variance_at_all(dtype: torch.dtype) -> None:
    x, y = (each.to(dtype) for each in rows())
    x[:, 2], y[:, 1] = 0.1, 1e6 / 3  # the rounding of their sums is no variance
    told = moments(x, y).statistics()
    assert told.gram[2].eq(0).all()
    assert told.gram[:, 2].eq(0).all()
    assert told.cross[2].eq(0).all()
    assert told.cross[:, 1].eq(0).all()
    assert told.energy[1] == 0
    assert told.gram.diagonal().count_nonzero() == 5
    assert told.error(torch.zeros(3, 2, 3)) == pytest.approx(1)


def test_constant_responses_are_missed_by_nothing_or_by_infinitely_much() -> None:
    told = moments(torch.ones(9, 4), torch.ones(9, 2)).statistics()
    assert told.error(torch.ones(2, 2, 2)) == 0
    assert moments(rows()[0], torch.ones(200, 2)).statistics().error(torch.ones(2, 2, 3)) == float("inf")


def test_refuses_to_tell_before_any_row() -> None:
    with pytest.raises(ValueError, match="no rows have been added"):
        Moments(4, 2).statistics()
