"""Methods that are another package's: what is computed is its own, and what it lacks is told."""

import sys

import pytest
import torch
from tensorly import cp_to_tensor
from tensorly.decomposition import parafac, partial_tucker
from tensorly.tucker_tensor import tucker_to_tensor
from torch import Tensor

from convsmith.algebra import FitRequest, Form, ThreeWay, Tucker, fit
from convsmith.algebra.second_moments import Moments
from convsmith.errors import ConvsmithError

pytestmark = pytest.mark.filterwarnings("ignore:Trying to compute SVD")
FORMS = [ThreeWay(5), ThreeWay(11), Tucker(3, 4), Tucker(5, 7)]


def weight() -> Tensor:
    return torch.randn(7, 5, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def theirs(form: Form, tensor: Tensor) -> Tensor:
    if isinstance(form, ThreeWay):
        made = cp_to_tensor(parafac(tensor.numpy(), form.rank, init="svd", random_state=0))
    else:
        core, factors = partial_tucker(tensor.numpy(), [form.outputs, form.inputs], modes=[0, 1])[0]
        made = tucker_to_tensor((core, [*factors, torch.eye(9, dtype=torch.float64).numpy()]))
    return torch.as_tensor(made)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_weight_made_is_theirs(form: Form) -> None:
    found = fit(form, weight(), FitRequest("tensorly"))
    wanted = theirs(form, weight())
    torch.testing.assert_close(form.compose(found.factors), wanted)
    assert found.error == pytest.approx(((weight() - wanted).norm() / weight().norm()).item(), abs=1e-12)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_with_data_the_bias_is_refitted_and_the_error_is_that_of_responses(form: Form) -> None:
    patches = torch.randn(400, 45, generator=torch.Generator().manual_seed(1), dtype=torch.float64).cumsum(1) + 2
    answers = patches @ weight().flatten(1).T
    seen = Moments(45, 7)
    seen.add(patches, answers)
    statistics = seen.statistics()
    found = fit(form, weight(), FitRequest("tensorly", statistics))
    made = patches @ form.compose(found.factors).flatten(1).T + found.bias
    torch.testing.assert_close(made.mean(0), answers.mean(0))
    missed = (answers - made).norm() / (answers - answers.mean(0)).norm()
    assert found.error == pytest.approx(missed.item(), rel=1e-4, abs=1e-6)
    mine = fit(form, weight(), FitRequest("als" if isinstance(form, ThreeWay) else "svd", statistics)).error
    assert isinstance(form, Tucker) or mine < found.error, "its responses are what our own fits"


@pytest.mark.parametrize("form", FORMS[:1], ids=str)
def test_a_weight_of_zeros_is_refused(form: Form) -> None:
    with pytest.raises(ConvsmithError, match="finds no factors of this weight; choose another"):
        fit(form, torch.zeros(7, 5, 9), FitRequest("tensorly"))


def test_what_to_install_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorly.decomposition", None)
    with pytest.raises(ConvsmithError, match=r"pip install convsmith\[tensorly\]"):
        fit(ThreeWay(3), weight(), FitRequest("tensorly"))
