"""The judge of decomposition methods: the weight and the responses themselves, and laws that any fit obeys."""

from collections.abc import Sequence

import torch
from torch import Tensor

from convsmith.algebra import (
    METHODS,
    Chain,
    Channel,
    DepthwiseFirst,
    Fit,
    FitRequest,
    Form,
    Link,
    PointwiseFirst,
    Spatial,
    ThreeWay,
    Tucker,
    fit,
)
from convsmith.algebra.second_moments import Moments, Statistics
from convsmith.errors import ConvsmithError, DataError
from convsmith.testing.oracles import hold

N, C, K = 7, 5, 9
_READS = torch.tensor([[1, 3], [0, 2], [4, 1], [2, 0], [3, 4]])
FORMS: tuple[Form, ...] = (
    DepthwiseFirst(2),
    DepthwiseFirst(1, torch.arange(N)[:, None] % C != torch.arange(C)),
    PointwiseFirst(2),
    ThreeWay(6),
    Channel(3),
    Spatial(3, (3, 3)),
    Tucker(3, 3),
    Chain(C, (Link(_READS), Link(torch.arange(N)[:, None] % C, (3, 3)))),
)
ORDER = torch.tensor([3, 1, 4, 0, 2])
SCALE = torch.tensor([0.02, 1.0, 50.0, 0.3, 7.0], dtype=torch.float64)


def check_method(method: str, forms: Sequence[Form] = FORMS, *, near: float = 0.1) -> None:
    """Judge a method on an instance of every form that it is registered for.

    The error told is that of the factors: of the weight, and with data of the responses with the bias told. Neither the
    order of channels nor, for a method that needs data, their scale changes it by more than `near`. Half precision,
    dead channels, constant ones, few samples and weights of zeros give finite factors, or a ConvsmithError. A fit
    repeats, and leaves the weight alone.

    forms: instances for weights (7, 5, 9), to which a form of your own is to be added. Raises AssertionError.

    >>> check_method("svd")
    """
    table = METHODS[method]
    judged = [form for form in forms if type(form) in table]
    left = [kind.name for kind in table if not any(isinstance(form, kind) for form in judged)]
    hold(not left, f"{method} fits {', '.join(left)}, of which `forms` holds no instance; add one.")
    for form in judged:
        case = f"{method} of {form.name}"
        _check_weight(form, method, case, near)
        _check_responses(form, method, case, near)
        _check_trouble(form, method, case)


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _problem() -> tuple[Tensor, Tensor, Tensor]:
    """A weight, patches whose entries go together, and the responses with a bias."""
    weight = _normal(N, C, K, seed=7)
    x = _normal(3000, C * K) @ _normal(C * K, C * K, seed=99) + _normal(3000, 1, seed=1) + 3
    return weight, x, x @ weight.flatten(1).T + _normal(N, seed=5)


def _moments(x: Tensor, y: Tensor) -> Statistics:
    seen = Moments(x.shape[1], y.shape[1])
    seen.add(x, y)
    return seen.statistics()


def _needs_data(form: Form, method: str) -> bool:
    try:
        fit(form, _normal(N, C, K, seed=7), FitRequest(method))
    except DataError:
        return True
    return False


def _made(form: Form, found: Fit) -> Tensor:
    return form.compose(tuple(factor.double() for factor in found.factors))


def _permuted(form: Form) -> bool:
    """Whether a form is the same for channels in another order."""
    return not isinstance(form, Chain) and not (isinstance(form, DepthwiseFirst) and form.mask is not None)


def _check_weight(form: Form, method: str, told: str, near: float) -> None:
    if _needs_data(form, method):
        return
    weight = _normal(N, C, K, seed=7)
    given = weight.clone().requires_grad_()
    fitted, again = (fit(form, given, FitRequest(method)) for _ in range(2))
    hold(torch.equal(given, weight), f"{told}: changes the weight.")
    hold(all(map(torch.equal, fitted.factors, again.factors)), f"{told}: a second fit gives other factors; seed draws.")
    made = _made(form, fitted)
    hold(
        made.shape == weight.shape,
        f"{told}: the factors make {tuple(made.shape)}, the weight is {tuple(weight.shape)}.",
    )
    error = ((weight - made).norm() / weight.norm()).item()
    hold(abs(fitted.error - error) < 1e-6, f"{told}: tells an error of {fitted.error} and makes {error:.4g}.")
    hold(0 < error < 1, f"{told}: an error of {error:.4g} is no better than zeros.")
    if _permuted(form):
        moved = fit(form, weight[:, ORDER], FitRequest(method)).error
        hold(
            abs(moved - error) < near * error,
            f"{told}: channels in another order have an error of {moved}, not {error}.",
        )


def _check_responses(form: Form, method: str, told: str, near: float) -> None:
    weight, x, y = _problem()
    fitted = fit(form, weight, FitRequest(method, _moments(x, y)))
    if fitted.bias is None:
        raise AssertionError(f"{told}: tells no bias.")
    missed = y - x @ _made(form, fitted).flatten(1).T - fitted.bias
    error = (missed.square().sum() / (y - y.mean(0)).square().sum()).sqrt().item()
    hold(abs(fitted.error - error) < 1e-5, f"{told}: with data tells an error of {fitted.error} and makes {error:.4g}.")
    if _permuted(form) and _needs_data(form, method):
        moved = (x.view(-1, C, K) * SCALE[:, None])[:, ORDER].flatten(1)
        other = fit(form, (weight / SCALE[:, None])[:, ORDER], FitRequest(method, _moments(moved, y))).error
        hold(
            abs(other - error) < near * error,
            f"{told}: channels in another order and of other scales have an error of {other}, not {error}.",
        )


def _troubled() -> dict[str, tuple[Tensor, Tensor]]:
    """Weights and patches by what is the matter with them."""
    weight, x, _ = _problem()
    dead, constant, silent = x.clone(), x.clone(), weight.clone()
    dead[:, K : 2 * K], constant[:, 3 * K :], silent[2] = 0, 0.7, 0
    return {
        "a dead channel": (weight, dead),
        "constant channels": (weight, constant),
        "a silent output": (silent, x),
        "a weight of zeros": (0 * weight, x),
        "fewer samples than unknowns": (weight, x[:20]),
        "half precision": (weight.half(), x.half()),
    }


def _check_trouble(form: Form, method: str, told: str) -> None:
    needs = _needs_data(form, method)
    for trouble, (weight, x) in _troubled().items():
        statistics = _moments(x, x @ weight.flatten(1).T)
        for request in [FitRequest(method, statistics)] + [FitRequest(method)] * (not needs):
            try:
                fitted = fit(form, weight, request)
            except ConvsmithError:
                continue  # to say that it cannot be done is as good
            finite = all(factor.isfinite().all() for factor in fitted.factors)
            hold(finite and fitted.error < 1.3, f"{told}: {trouble} gives an error of {fitted.error}.")
            kept = all(factor.dtype == weight.dtype for factor in fitted.factors)
            hold(kept, f"{told}: {trouble} gives factors of another type.")
