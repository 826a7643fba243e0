"""Ops that reduce dimensions, or let every index of one see many others."""

from collections.abc import Sequence

import numpy as np

from convsmith.graph.call import Answer, Call, dim_of, numbers, unary
from convsmith.reach import Reach
from convsmith.reach.windows import Taps


def _reduced(call: Call, x: Reach, dims: Sequence[int]) -> Reach:
    x = x.reduce(*dims)
    for dim in sorted(dims, reverse=True):
        x = x if call.args.get("keepdim") else x.drop(dim)
    return x


@unary(
    "aten.mean.dim", "aten.sum.dim_IntList", "aten.amax.default", "aten.amin.default", "aten.logsumexp.default",
    "aten.linalg_vector_norm.default", "aten.norm.ScalarOpt_dim", "aten.var.dim", "aten.var.correction",
    "aten.std.dim", "aten.std.correction", "aten.prod.dim_int", "aten.argmax.default", "aten.argmin.default",
    "aten.all.dim", "aten.any.dim",
)  # fmt: skip
def reduction(call: Call, x: Reach) -> Reach:
    """One element that sees the whole of each reduced dimension; no dimensions mean all."""
    return _given(call, x)


def _given(call: Call, x: Reach) -> Reach:
    given = numbers([] if call["dim"] is None else call["dim"], 1)
    return _reduced(call, x, [dim_of(call, d) for d in given] or range(len(x.shape)))


@unary(
    "aten.mean.default", "aten.sum.default", "aten.max.default", "aten.min.default", "aten.var.default",
    "aten.std.default", "aten.prod.default", "aten.norm.Scalar", "aten.all.default", "aten.any.default",
)  # fmt: skip
def total(call: Call, x: Reach) -> Reach:
    """One number that sees everything."""
    return _reduced(call, x, range(len(x.shape)))


@unary("aten.max.dim", "aten.min.dim", "aten.var_mean.correction", "aten.std_mean.correction", "aten.var_mean.dim",
       "aten.std_mean.dim", "aten.median.dim")  # fmt: skip
def pair(call: Call, x: Reach) -> Answer:
    """Two answers about the same dimensions."""
    answer = _given(call, x)
    return answer, answer


@unary("aten.cumsum.default", "aten.cumprod.default")
def cumulative(call: Call, x: Reach) -> Reach:
    """Index j sees all up to j."""
    dim = dim_of(call, call["dim"])
    index = np.arange(x.shape[dim])
    return x.select(dim, Taps.pick(np.where(index[None] <= index[:, None], index[None], -1)))


@unary("aten.sort.default", "aten.sort.stable", "aten.topk.default")
def ordered(call: Call, x: Reach) -> Answer:
    """Any index of the dimension may come anywhere: each answer sees all."""
    dim = dim_of(call, call["dim"])
    answer = x.reduce(dim).expand(call.out)
    return answer, answer


@unary("aten.fft_fft2.default", "aten.fft_rfft2.default", "aten.fft_ifft2.default", "aten.fft_irfft2.default")
def spectrum(call: Call, x: Reach) -> Reach:
    """Every frequency sees the whole map."""
    return x.reduce(*(dim_of(call, d) for d in numbers(call["dim"], 1))).expand(call.out)
