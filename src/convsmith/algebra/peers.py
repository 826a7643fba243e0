"""CP and Tucker-2 of weights as tensorly computes them, to compare with: `pip install convsmith[tensorly]`."""

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from numpy.linalg import LinAlgError
from torch import Tensor

from convsmith.algebra.fitting import Target, fits
from convsmith.algebra.forms import Factors, ThreeWay, Tucker
from convsmith.errors import ConvsmithError


@fits("tensorly", ThreeWay)
def tensorly_three_way(form: ThreeWay, target: Target) -> Factors:
    """Alternating least squares on the weight, from singular vectors on: tensorly's `parafac`, 100 sweeps at most."""
    scales, (a, b, d) = _found(lambda tl: tl.parafac(_array(target), form.rank, init="svd", random_state=0))
    return _tensors(target.weight, b.T, d.T, a * scales)


@fits("tensorly", Tucker)
def tensorly_tucker(form: Tucker, target: Target) -> Factors:
    """Higher-order orthogonal iteration on the weight: tensorly's `partial_tucker` of outputs and inputs."""
    (core, (a, b)), _ = _found(lambda tl: tl.partial_tucker(_array(target), [form.outputs, form.inputs], modes=[0, 1]))
    return _tensors(target.weight, b.T, core, a)


def _array(target: Target) -> Any:
    return target.weight.cpu().numpy()


def _found(decompose: Callable[[Any], Any]) -> Any:
    """What tensorly answers; raises ConvsmithError where it is not installed or finds nothing."""
    try:
        decomposition = import_module("tensorly.decomposition")
    except ImportError:
        raise ConvsmithError(
            "The method tensorly needs the package of that name; run `pip install convsmith[tensorly]`."
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ranks above a side, and of dead weights, which is told below
        try:
            return decompose(decomposition)
        except LinAlgError:
            raise _NOTHING from None


_NOTHING = ConvsmithError("tensorly finds no factors of this weight; choose another method.")


def _tensors(like: Tensor, *arrays: Any) -> Factors:
    factors = tuple(torch.as_tensor(array).to(like) for array in arrays)
    if not all(factor.isfinite().all() for factor in factors):
        raise _NOTHING
    return factors
