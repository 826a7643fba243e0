"""Fits to responses: their laws on the rows they are fitted to, brute force, and data that gives trouble."""

import importlib.util
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from convsmith.algebra import (
    METHODS,
    Chain,
    Channel,
    DepthwiseFirst,
    FitRequest,
    Form,
    Link,
    PointwiseFirst,
    Spatial,
    ThreeWay,
    Tucker,
    fit,
    relative_error,
)
from convsmith.algebra.second_moments import Moments, Rows, Statistics

N, C, K = 7, 5, 9
FORMS = [DepthwiseFirst(1), DepthwiseFirst(2), PointwiseFirst(1), PointwiseFirst(2), ThreeWay(6), Channel(3)]
MASKED = DepthwiseFirst(1, torch.arange(N)[:, None] % C != torch.arange(C))
OTHERS = [Spatial(3, (3, 3)), Tucker(3, 3)]
PAIRS = [
    (form, name)
    for form in [*FORMS, MASKED, *OTHERS]
    for name in ("svd", "gsvd", "compensated", "als")  # laws that hold of any method: tests/testing
    if type(form) in METHODS[name]
]
each_pair = pytest.mark.parametrize(("form", "method"), PAIRS, ids=lambda value: getattr(value, "name", value))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(samples: int, seed: int = 0, inputs: int = C * K) -> Tensor:
    """Patches whose entries go together, with a mean as behind a ReLU."""
    return normal(samples, inputs, seed=seed) @ normal(inputs, inputs, seed=99) + normal(samples, 1, seed=seed + 1) + 3


def moments(x: Tensor, y: Tensor) -> Statistics:
    seen = Moments(x.shape[1], y.shape[1])
    seen.add(x, y)
    return seen.statistics()


def symmetric(samples: int = 3000, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Statistics]:
    """A weight, patches, the responses it gives them with a bias, and their moments."""
    weight, x = normal(N, C, K, seed=seed + 7), correlated(samples, seed)
    y = x @ weight.flatten(1).T + normal(N, seed=5)
    return weight, x, y, moments(x, y)


def asymmetric(samples: int = 3000) -> tuple[Tensor, Statistics]:
    """The same where patches come from another net than responses do."""
    weight, x, y, _ = symmetric(samples)
    return weight, moments(x + 0.5 * normal(*x.shape, seed=3) @ normal(x.shape[1], x.shape[1], seed=4), y)


# --- what is told is what is attained ---


@each_pair
def test_the_error_told_is_that_of_the_responses_with_the_bias_told(form: Form, method: str) -> None:
    weight, x, y, statistics = symmetric()
    found = fit(form, weight, FitRequest(method, statistics))
    missed = y - (x @ form.compose(found.factors).flatten(1).T + found.bias)
    assert found.error == pytest.approx((missed.square().sum() / (y - y.mean(0)).square().sum()).sqrt().item())
    torch.testing.assert_close(missed.mean(0), torch.zeros(N).double(), atol=1e-9, rtol=0)
    assert 0.01 < found.error < 1


def full(form: Form) -> Form:
    return {
        DepthwiseFirst: DepthwiseFirst(min(N, K)),
        PointwiseFirst: PointwiseFirst(min(C, K)),
        ThreeWay: ThreeWay(N * C),
        Channel: Channel(N),
        Spatial: Spatial(C * 3, (3, 3)),
        Tucker: Tucker(C, N),
    }[type(form)]


@each_pair
def test_exact_at_full_rank(form: Form, method: str) -> None:
    weight, _, _, statistics = symmetric()
    exact = full(form)
    near = 0.02 if isinstance(form, ThreeWay) else 1e-5
    assert fit(exact, weight.float(), FitRequest(method, statistics)).error < near
    assert fit(exact, weight, FitRequest(method, Statistics.of_weight(weight))).error < near


@pytest.mark.parametrize("method", ["gsvd", "compensated", "als"])
@pytest.mark.parametrize("form", [DepthwiseFirst(1), DepthwiseFirst(2), MASKED], ids=lambda form: form.name)
def test_on_white_inputs_every_method_of_the_separable_form_is_the_plain_one(form: Form, method: str) -> None:
    weight = normal(N, C, K)
    plain, found = fit(form, weight), fit(form, weight, FitRequest(method, Statistics.of_weight(weight)))
    assert found.error == pytest.approx(plain.error, abs=1e-6)
    torch.testing.assert_close(form.compose(found.factors), form.compose(plain.factors), atol=1e-3, rtol=1e-3)


# --- no step raises the error ---


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("form", [DepthwiseFirst(1), DepthwiseFirst(3), MASKED], ids=lambda form: form.name)
def test_each_method_is_no_worse_than_the_one_it_starts_from(form: Form, seed: int) -> None:
    weight, _, _, statistics = symmetric(seed=seed)
    errors = [fit(form, weight, FitRequest(method, statistics)).error for method in ("als", "compensated", "gsvd")]
    assert errors == sorted(errors)
    assert errors[0] < 0.95 * errors[-1]


@pytest.mark.parametrize("rank", [1, 2])
def test_pointwise_first_is_no_worse_output_by_output(rank: int) -> None:
    weight, x, y, statistics = symmetric()
    form = PointwiseFirst(rank)
    missed = []
    for method in ("als", "gsvd", "svd"):
        found = fit(form, weight, FitRequest(method, statistics))
        missed.append((y - x @ form.compose(found.factors).flatten(1).T - found.bias).square().sum(0))
    assert missed[0].sum() < 0.9 * missed[1].sum()
    assert (missed[1] <= missed[2] + 1e-6).all()


@pytest.mark.parametrize("rank", [1, 2])
def test_gsvd_loses_least_of_what_each_channel_answers(rank: int) -> None:
    weight, x, _, statistics = symmetric()
    form, missed = DepthwiseFirst(rank), []
    for method in ("gsvd", "svd"):
        change = weight - form.compose(fit(form, weight, FitRequest(method, statistics)).factors)
        own = (x - x.mean(0)).view(-1, C, K)
        missed.append(torch.einsum("sck,nck->csn", own, change).square().sum((1, 2)))
    assert (missed[0] < missed[1]).all()


def test_more_sweeps_and_evaluations_never_raise_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, _, _, statistics = symmetric()
    for form, method, module, name in (
        (DepthwiseFirst(1), "compensated", "compensated.SWEEPS", (0, 1, 2, 5, 10)),
        (DepthwiseFirst(1), "als", "als.EVALUATIONS", (1, 2, 5, 20, 60)),
        (PointwiseFirst(1), "als", "als.EVALUATIONS", (1, 2, 5, 20, 60)),
        (ThreeWay(6), "als", "cp.EVALUATIONS", (40, 80, 160)),
        (Spatial(3, (3, 3)), "als", "spatial.EVALUATIONS", (1, 2, 5, 20, 60)),
        (Tucker(3, 3), "als", "tucker.EVALUATIONS", (1, 2, 5, 20, 60)),
    ):
        errors = []
        for count in name:
            monkeypatch.setattr(f"convsmith.algebra.{module}", count)
            errors.append(fit(form, weight, FitRequest(method, statistics)).error)
        # of a form whose terms are bounded the last digits are the bound's
        assert all(more <= fewer * (1 + 1e-5) for fewer, more in pairwise(errors)), (form.name, method)


@pytest.mark.parametrize("form", [DepthwiseFirst(2), PointwiseFirst(2), ThreeWay(6)], ids=lambda form: form.name)
def test_a_draft_is_between_its_start_and_the_fit(form: Form) -> None:
    weight, _, _, statistics = symmetric()
    start = {"dw-pw": "compensated", "pw-dw": "gsvd"}.get(form.name)
    draft = fit(form, weight, FitRequest("als", statistics, draft=True)).error
    whole = fit(form, weight, FitRequest("als", statistics)).error
    assert whole <= draft <= 1.1 * whole
    if start is not None:
        assert draft < fit(form, weight, FitRequest(start, statistics)).error


def test_chunks_of_channels_are_a_matter_of_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = normal(4, 20, 4), correlated(2000, inputs=80)
    statistics, form, found = moments(x, x @ weight.flatten(1).T), DepthwiseFirst(1), []
    for chunk in (1, 16, 20):
        monkeypatch.setattr("convsmith.algebra.conditioned.CHUNK", chunk)
        found.append(form.compose(fit(form, weight, FitRequest("compensated", statistics)).factors))
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


@pytest.mark.parametrize("seen", [False, True])
def test_terms_of_the_three_way_form_do_not_cancel(seen: bool) -> None:
    """A tensor of rank 3 that ones of rank 2 come as near to as they like, by terms that grow without bound."""
    (n0, n1), (c0, c1), (k0, k1) = (torch.linalg.qr(normal(size, 2, seed=size))[0].T for size in (N, C, K))
    near = ((n1, c0, k0), (n0, c1, k0), (n0, c0, k1))
    weight = torch.stack([torch.einsum("n,c,k->nck", *vectors) for vectors in near]).sum(0)
    x = correlated(3000)
    statistics = moments(x, x @ weight.flatten(1).T) if seen else None
    found = fit(ThreeWay(2), weight, FitRequest("als", statistics))
    b, d, a = found.factors
    assert (b.norm(dim=1) * d.norm(dim=1) * a.norm(dim=0)).sum() < 10 * weight.norm()
    assert found.error < 0.1, "and yet they come near"


# --- brute force ---


def searched(form: Form, weight: Tensor, statistics: Statistics, start: tuple[Tensor, ...]) -> float:
    """The least relative error that a general-purpose optimizer finds over all factors at once."""
    at = [factor.double().contiguous().clone().requires_grad_() for factor in start]
    search = torch.optim.LBFGS(at, max_iter=150, line_search_fn="strong_wolfe", tolerance_change=1e-14)

    def closure() -> Tensor:
        search.zero_grad()
        rows = form.compose(tuple(at)).flatten(1)
        loss = (rows @ statistics.gram * rows).sum() - 2 * (rows * statistics.cross.T).sum()
        loss = loss / statistics.energy.sum()
        loss.backward()
        return loss

    search.step(closure)
    return statistics.error(form.compose(tuple(each.detach() for each in at)))


@pytest.mark.parametrize("data", [symmetric, asymmetric])
@pytest.mark.parametrize(
    ("form", "method", "gap"),
    [
        (DepthwiseFirst(1), "als", 0.01),
        (DepthwiseFirst(2), "als", 0.02),
        (PointwiseFirst(1), "als", 0.03),
        (ThreeWay(6), "als", 0.03),
        (Channel(3), "gsvd", 1e-3),
        (Spatial(3, (3, 3)), "als", 0.02),
        (Tucker(3, 3), "als", 0.02),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_brute_force_from_the_fit_and_from_anywhere_finds_nothing_better(
    form: Form, method: str, gap: float, data: object
) -> None:
    weight, *_, statistics = data()
    found = fit(form, weight, FitRequest(method, statistics))
    assert searched(form, weight, statistics, found.factors) > found.error * (1 - gap)
    for seed in range(2):
        start = tuple(normal(*factor.shape, seed=seed) for factor in found.factors)
        assert searched(form, weight, statistics, start) > found.error * (1 - gap)


def test_brute_force_cannot_beat_the_closed_forms_of_one_channel() -> None:
    weight, x = normal(N, 1, K), correlated(2000, inputs=K)
    statistics = moments(x, x @ weight.flatten(1).T)
    for rank in (1, 2, 3):
        form = DepthwiseFirst(rank)
        found = fit(form, weight, FitRequest("gsvd", statistics))
        for seed in range(3):
            start = tuple(normal(*factor.shape, seed=seed) for factor in found.factors)
            assert searched(form, weight, statistics, start) > found.error - 1e-6


# --- invariance ---


@pytest.mark.parametrize(
    ("form", "method"),
    [(form, method) for form, method in PAIRS if method != "svd" and form is not MASKED],  # svd sees no data
    ids=lambda value: getattr(value, "name", value),
)
def test_order_and_scale_of_channels_do_not_matter(form: Form, method: str) -> None:
    weight, x, y, statistics = symmetric()
    order, scale = torch.tensor([3, 1, 4, 0, 2]), torch.tensor([0.02, 1.0, 50.0, 0.3, 7.0]).double()
    moved = (x.view(-1, C, K) * scale[:, None])[:, order].flatten(1)
    other = fit(form, (weight / scale[:, None])[:, order], FitRequest(method, moments(moved, y)))
    # pw-dw starts from svd where that is better, which sees scales; the others' descents end in a minimum nearby
    near = 0.06 if form.name == "pw-dw" else 1e-4 if method == "gsvd" else 0.02
    assert other.error == pytest.approx(fit(form, weight, FitRequest(method, statistics)).error, rel=near)


# --- trouble ---


def troubled() -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Weight, patches and responses by what is the matter with them."""
    weight, x, y, _ = symmetric(300)
    dead, constant, copied = x.clone(), x.clone(), x.clone()
    dead[:, K : 2 * K], constant[:, 3 * K :], copied[:, K : 2 * K] = 0, 0.7, x[:, :K]
    silent = weight.clone()
    silent[2] = 0
    flat = weight.flatten(1).T
    return {
        "a dead channel": (weight, dead, dead @ flat),
        "constant channels": (weight, constant, constant @ flat),
        "two channels the same": (weight, copied, copied @ flat),
        "all constant": (weight, torch.ones_like(x), torch.ones_like(x) @ flat),
        "a silent output": (silent, x, x @ silent.flatten(1).T),
        "fewer samples than unknowns": (weight, x[:20], y[:20]),
        "one sample": (weight, x[:1], y[:1]),
        "tiny": (weight, 1e-12 * x, 1e-12 * y),
        "huge": (weight, 1e12 * x, 1e12 * y),
        "one output": (weight[:1], x, y[:, :1]),
        "half precision": (weight.half(), x.half(), y.half()),
        "bfloat16": (weight.bfloat16(), x.bfloat16(), y.bfloat16()),
    }


@pytest.mark.parametrize("trouble", troubled())
def test_trouble_gives_finite_factors_never_worse_than_nothing(trouble: str) -> None:
    weight, x, y = troubled()[trouble]
    statistics = moments(x, y)
    for form, method in PAIRS:
        if len(weight) == 1 and (form in FORMS[1:2] or form.name not in ("dw-pw", "pw-dw", "cp") or form is MASKED):
            continue  # ranks beyond what one output has
        found = fit(form, weight, FitRequest(method, statistics))
        told = f"{form.name} {method}"
        assert all(factor.isfinite().all() for factor in found.factors), told
        assert all(factor.dtype == weight.dtype for factor in found.factors), told
        assert found.bias is not None, told
        assert found.bias.isfinite().all(), told
        assert 0 <= found.error < 1.3, told


@pytest.mark.parametrize(("form", "method"), [pair for pair in PAIRS if pair[1] != "svd"], ids=str)
def test_products_of_float32_that_leave_a_gram_matrix_indefinite_are_fitted(form: Form, method: str) -> None:
    weight, x, y = troubled()["two channels the same"]
    statistics = replace(moments(x, y), samples=2**40)  # so many that nothing is taken out and made sound by that
    noise = normal(C * K, C * K, seed=11)
    gram = statistics.gram + 3e-6 * statistics.gram.diagonal().mean() * (noise + noise.T) / 2
    assert torch.linalg.eigvalsh(gram)[0] < -1e-6 * gram.diagonal().mean()
    found = fit(form, weight, FitRequest(method, replace(statistics, gram=gram)))
    assert found.error == pytest.approx(fit(form, weight, FitRequest(method, statistics)).error, rel=0.02)


def test_a_dead_channel_is_fitted_to_its_weight() -> None:
    weight, x, y = troubled()["a dead channel"]
    form = DepthwiseFirst(1)
    found = form.compose(fit(form, weight, FitRequest("gsvd", moments(x, y))).factors)
    torch.testing.assert_close(found[:, 1], form.compose(fit(form, weight).factors)[:, 1], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("form", "method"), [(DepthwiseFirst(2), "als"), (ThreeWay(6), "als"), (Channel(3), "gsvd")])
@pytest.mark.parametrize("active", [1, 3, 10])
@pytest.mark.parametrize("size", [1.0, 1e3])
def test_few_active_rows_make_nothing_of_a_weight(form: Form, method: str, active: int, size: float) -> None:
    weight, x, _, _ = symmetric()
    x.view(-1, C, K)[active:, 1] = 0
    x.view(-1, C, K)[:, 1] *= size
    weight[:, 1] /= size
    found = form.compose(fit(form, weight, FitRequest(method, moments(x, x @ weight.flatten(1).T))).factors)
    assert found[:, 1].norm() < 1.5 * weight[:, 1].norm()


@pytest.mark.parametrize(("form", "method"), [(DepthwiseFirst(1), "als"), (ThreeWay(6), "als"), (Channel(3), "gsvd")])
def test_few_samples_do_not_spoil_what_is_not_seen(form: Form, method: str) -> None:
    weight, x, y, _ = symmetric(60)
    held = symmetric(3000, seed=50)[1]
    unseen = moments(held, held @ weight.flatten(1).T)
    few = unseen.error(form.compose(fit(form, weight, FitRequest(method, moments(x, y))).factors))
    plain = fit(form, weight, FitRequest("als" if form.name == "cp" else "svd"))
    assert few < unseen.error(form.compose(plain.factors))


@pytest.mark.parametrize("taps", [(1, 3), (5, 5), (2, 2)])
def test_other_kernels(taps: tuple[int, int]) -> None:
    size = taps[0] * taps[1]
    weight, x = normal(6, 4, size), correlated(2000, inputs=4 * size)
    statistics = moments(x, x @ weight.flatten(1).T)
    for form in (DepthwiseFirst(1), PointwiseFirst(1)):
        errors = [fit(form, weight, FitRequest(method, statistics)).error for method in ("als", "gsvd", "svd")]
        assert errors[0] < errors[2]
    assert (
        fit(ThreeWay(5), weight, FitRequest("als", statistics)).error
        < fit(ThreeWay(5), weight, FitRequest("als")).error
    )


# --- behind a ReLU ---


def rectified(form: Form, found: object, x: Tensor, y: Tensor, scale: Tensor, shift: Tensor) -> float:
    """Relative error behind BatchNorm and ReLU."""
    made = x @ form.compose(found.factors).flatten(1).T + found.bias
    target = (scale * y + shift).relu()
    return relative_error(target, (scale * made + shift).relu())


READS = torch.tensor([[1, 3], [0, 2], [4, 1], [2, 0], [3, 4]])
CHAIN = Chain(C, (Link(READS), Link(torch.arange(N)[:, None] % C, (3, 3))))
SHUFFLED = Chain(C, (Link(READS, (3, 3)), Link(READS[:, :1], weighted=False), Link(READS[torch.arange(N) % 3])))
ALL = [*FORMS, MASKED, *OTHERS, CHAIN, SHUFFLED]


@pytest.mark.parametrize("form", ALL, ids=lambda form: form.name)
def test_a_form_is_linear_in_its_last_factor_and_its_parts_say_how(form: Form) -> None:
    *before, last = fit(form, normal(N, C, K), FitRequest("als" if form.name in ("cp", "seq") else "svd")).factors
    last = normal(*last.shape, seed=3)
    made, seen = form.compose((*before, last)).flatten(1), torch.zeros(N, C * K).double()
    for outputs, free, features in form.parts((*before, last)):
        seen[outputs] += last.flatten(1)[outputs][:, free] @ features
    if form is MASKED:
        made = form.compose((*before, last * MASKED.mask[..., None])).flatten(1)
    torch.testing.assert_close(seen, made)


@pytest.mark.parametrize("form", ALL, ids=lambda form: form.name)
@pytest.mark.parametrize("normed", [False, True])
def test_the_refit_lowers_the_error_behind_the_relu(form: Form, normed: bool) -> None:
    weight, x, y, statistics = symmetric()
    scale, shift = (normal(N, seed=8), 3 * normal(N, seed=9)) if normed else (torch.ones(N), torch.zeros(N))
    rows = Rows(x, y, scale, shift) if normed else Rows(x, y)
    method = "als" if form.name in ("cp", "seq") else "svd"
    plain, refitted = (
        fit(form, weight, FitRequest(method, statistics)),
        fit(form, weight, FitRequest(method, statistics, rows)),
    )
    before, after = (rectified(form, found, x, y, scale, shift) for found in (plain, refitted))
    assert after < before * 0.995


def test_the_refit_leaves_alone_what_it_cannot_better() -> None:
    weight, x, y, statistics = symmetric()
    form = DepthwiseFirst(min(N, K))
    scale = torch.tensor([1.0, 0, 1, 1, 1, 1, 1]).double()
    dead = Rows(x, y, scale, torch.zeros(N))
    plain, refitted = (fit(form, weight, FitRequest("svd", statistics, rows)) for rows in (None, dead))
    torch.testing.assert_close(form.compose(refitted.factors), form.compose(plain.factors), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(refitted.bias, plain.bias, atol=1e-6, rtol=1e-6)


# --- the table of made-up inputs ---


def table() -> ModuleType:
    path = Path(__file__).parents[2] / "bench" / "decompose_table.py"
    spec = importlib.util.spec_from_file_location("decompose_table", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_small_table_has_the_shape_of_the_large_one() -> None:
    bench = table()
    told = bench.errors(channels=16, rows=3000, seed=0)
    white, blurred, mixed, smooth = bench.KINDS
    for name, errors in told.items():
        assert all(0 < error < 1 for error in errors.values()), name
    assert told["dw-pw als"][white] == pytest.approx(told["dw-pw svd"][white], abs=0.02), "nothing to learn from"
    for kind in (mixed, smooth):
        chain = [told[f"dw-pw {method}"][kind] for method in ("svd", "gsvd", "compensated", "als")]
        assert chain == sorted(chain, reverse=True)
    assert told["dw-pw gsvd"][blurred] < told["dw-pw svd"][blurred] - 0.1
    assert told["dw-pw als"][mixed] < told["dw-pw svd"][mixed] - 0.2
    assert told["cp als"][mixed] < told["cp als, weights"][mixed] - 0.2
    assert told["cp als"][mixed] < min(told[name][mixed] for name in ("channel gsvd", "spatial svd", "tucker svd"))
