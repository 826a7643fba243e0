"""Ops that interpolate: nearest, linear and cubic, over one to three axes."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from convsmith.graph.call import Call, unary
from convsmith.reach import Reach
from convsmith.reach.windows import Taps

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
NONE = 1e-6  # a weight below is one that rounding made


def _scale(size: int, outputs: int, factor: float | None) -> float:
    return 1 / factor if factor else size / outputs


@lru_cache(maxsize=512)
def nearest(size: int, outputs: int, factor: float | None, exact: bool) -> Taps:
    """The nearest position, as torch rounds it: in single precision."""
    scale = np.float32(_scale(size, outputs, factor))
    places = (np.arange(outputs, dtype=np.float32) + np.float32(0.5 if exact else 0)) * scale
    index = np.minimum(np.floor(places).astype(np.int64), size - 1)
    return Taps.pick(index[:, None], float(scale))


def _triangle(distance: Floats) -> Floats:
    return 1 - np.abs(distance)


def _cubic(distance: Floats) -> Floats:
    """A quarter of Keys' kernel's sign is enough: it vanishes at whole numbers and from 2 on."""
    x = np.abs(distance)
    return np.where((x < 2) & (np.abs(x - np.round(x)) > NONE) | (x < NONE), 1.0, 0.0)


@lru_cache(maxsize=512)
def between(size: int, outputs: int, factor: float | None, corners: bool, cubic: bool) -> Taps:
    """The 2 or 4 positions around, without those of no weight; beyond the border the border's."""
    scale = (size - 1) / max(outputs - 1, 1) if corners else _scale(size, outputs, factor)
    places = np.arange(outputs) * scale if corners else (np.arange(outputs) + 0.5) * scale - 0.5
    places = places if cubic else places.clip(0, size - 1)
    offsets = np.arange(-1, 3) if cubic else np.arange(0, 2)
    index = np.floor(places + NONE).astype(np.int64)[:, None] + offsets
    weight = (_cubic if cubic else _triangle)(places[:, None] - index)
    return _table(index.clip(0, size - 1), weight, scale)


@lru_cache(maxsize=512)
def antialiased(size: int, outputs: int, factor: float | None, corners: bool, cubic: bool) -> Taps:
    """All positions under the kernel, which widens where the map shrinks."""
    scale = (size - 1) / max(outputs - 1, 1) if corners else _scale(size, outputs, factor)
    wide, centers = max(scale, 1.0), (np.arange(outputs)[:, None] + 0.5) * scale
    index = np.arange(size)[None]
    kernel: Callable[[Floats], Floats] = _cubic if cubic else _triangle
    return _table(np.broadcast_to(index, (outputs, size)), kernel((index + 0.5 - centers) / wide), scale)


def _table(index: Ints, weight: Floats, scale: float) -> Taps:
    return Taps.pick(np.where(weight > NONE, index, -1), scale)


def _resized(call: Call, x: Reach, taps: Callable[[int, int, float | None], Taps]) -> Reach:
    n = len(call.out) - 2
    factors = call.args.get("scale_factors") or [
        value for name, value in call.args.items() if name.startswith("scales")
    ]
    for axis, factor in enumerate(factors or [None] * n):
        x = x.select(axis + 2, taps(x.shape[axis + 2], call.out[axis + 2], factor))
    return x


def _forms(name: str, axes: tuple[int, ...]) -> list[str]:
    return [f"aten.{name}{n}d.{form}" for n in axes for form in ("default", "vec")]


@unary(*_forms("upsample_nearest", (1, 2, 3)))
def upsample_nearest(call: Call, x: Reach) -> Reach:
    """Each position sees one."""
    return _resized(call, x, lambda *sizes: nearest(*sizes, False))


@unary(*_forms("_upsample_nearest_exact", (1, 2, 3)))
def upsample_nearest_exact(call: Call, x: Reach) -> Reach:
    """The same from centers to centers."""
    return _resized(call, x, lambda *sizes: nearest(*sizes, True))


@unary(*_forms("upsample_linear", (1,)), *_forms("upsample_bilinear", (2,)), *_forms("upsample_trilinear", (3,)))
def upsample_linear(call: Call, x: Reach) -> Reach:
    """Each position sees two along each axis."""
    return _resized(call, x, lambda *sizes: between(*sizes, call["align_corners"], False))


@unary(*_forms("upsample_bicubic", (2,)))
def upsample_cubic(call: Call, x: Reach) -> Reach:
    """Each position sees four along each axis."""
    return _resized(call, x, lambda *sizes: between(*sizes, call["align_corners"], True))


@unary("aten._upsample_bilinear2d_aa.default", "aten._upsample_bilinear2d_aa.vec")
def antialiased_linear(call: Call, x: Reach) -> Reach:
    """Each position sees all under a triangle."""
    return _resized(call, x, lambda *sizes: antialiased(*sizes, call["align_corners"], False))


@unary("aten._upsample_bicubic2d_aa.default", "aten._upsample_bicubic2d_aa.vec")
def antialiased_cubic(call: Call, x: Reach) -> Reach:
    """Each position sees all under a cubic kernel."""
    return _resized(call, x, lambda *sizes: antialiased(*sizes, call["align_corners"], True))
