"""Padding, moving, resizing, reducing."""

import torch
import torch.nn.functional as F

from specimens.base import Specimen, alone, aten, behind, joined, own

VOLUME = (2, 4, 4, 5)
COLUMNS = torch.tensor([0, 3])
ROWS_AND_COLUMNS = (torch.tensor([1, 5]), COLUMNS)


def resized(mode: str, **options: object) -> Specimen:
    return behind(lambda x: F.interpolate(x, mode=mode, **options))  # type: ignore[arg-type]


def grid() -> torch.Tensor:
    return F.affine_grid(own(1, 2, 3), [1, 4, 5, 5], align_corners=False)


def most(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x.amax(2), x.amin(2)], 1)


MAPS = {
    "pad": behind(lambda x: F.pad(x, (1, 2, 0, 3))),
    "crop": behind(lambda x: F.pad(x, (-1, 0, 2, -2))),
    "pad channels": behind(lambda x: F.pad(x, (0, 0, 0, 0, 2, 1))),
    "constant pad": behind(lambda x: aten.constant_pad_nd.default(x, [1, 0, 0, 1])),
    "reflected": behind(lambda x: F.pad(x, (2, 1, 3, 0), mode="reflect")),
    "replicated": behind(lambda x: F.pad(x, (2, 1, 3, 0), mode="replicate")),
    "circular": behind(lambda x: F.pad(x, (2, 1, 3, 0), mode="circular")),
    **{
        f"reflected {n}d": alone(lambda x, n=n: getattr(aten, f"reflection_pad{n}d")(x, [1, 2] * n), *VOLUME[: n + 1])
        for n in (1, 2, 3)
    },
    **{
        f"replicated {n}d": alone(lambda x, n=n: getattr(aten, f"replication_pad{n}d")(x, [1, 2] * n), *VOLUME[: n + 1])
        for n in (1, 2, 3)
    },
    "roll": behind(lambda x: x.roll((1, -2), (1, 3))),
    "roll through all": behind(lambda x: x.roll(5)),
    "flip": behind(lambda x: x.flip((1, 3))),
    "index": behind(lambda x: x[:, [2, 0, 1]], bound=True),
    "index of two": behind(lambda x: x[:, :, [[0, 1], [2, 3]], [[5, 4], [3, 2]]], bound=True),
    "index of two apart": behind(lambda x: x[:, [0, 1, 3], :, [5, 4, 2]], bound=True),
    "index by a mask": behind(lambda x: x[:, :, torch.ones(7, 6).triu().bool()], bound=True),
    "index put": joined(lambda a, b: aten.index_put.default(a, [None, torch.tensor([2, 0])], b[:, :2]), bound=True),
    "index put, in place": joined(
        lambda a, b: aten.index_put_.default(a.clone(), [None, None, torch.tensor([5])], b[:, :, :1]), bound=True
    ),
    "index put of two": joined(
        lambda a, b: aten.index_put.default(a, [None, None, *ROWS_AND_COLUMNS], b[:, :, 0, :2]),
        bound=True,
    ),
    "index put apart": joined(
        lambda a, b: aten.index_put.default(a, [None, COLUMNS, None, COLUMNS], b[0, 0, 0, :1]),
        bound=True,
    ),
    "index put by a mask": joined(
        lambda a, b: aten.index_put.default(a, [None, None, torch.ones(7, 6).triu().bool()], b[0, 0, 0, 0]),
        bound=True,
    ),
    "index add": joined(lambda a, b: aten.index_add.default(a, 2, torch.tensor([5, 0]), b[:, :, :2]), bound=True),
    "index copy, in place": joined(
        lambda a, b: aten.index_copy_.default(a.clone(), 3, torch.tensor([4, 1]), b[..., :2]), bound=True
    ),
    "slice scatter": joined(lambda a, b: aten.slice_scatter.default(a, b[:, :, :3], 2, 1, 4)),
    "slice scatter by steps": joined(lambda a, b: aten.slice_scatter.default(a, b[..., :3], -1, -6, 9, 2)),
    "slice scatter of all": joined(lambda a, b: aten.slice_scatter.default(a, b)),
    "select scatter": joined(lambda a, b: aten.select_scatter.default(a, b[:, 0], 1, -1)),
    "scatter, in place": joined(
        lambda a, b: aten.scatter_.value(a + b, 2, torch.zeros(1, 4, 1, 6, dtype=torch.int64), 1.0), bound=True
    ),
    "index select": behind(lambda x: x.index_select(3, torch.tensor([5, 0])), bound=True),
    "gather": behind(lambda x: x.gather(2, torch.zeros(1, 4, 2, 6, dtype=torch.int64)), bound=True),
    "take along": behind(lambda x: torch.take_along_dim(x, torch.zeros(1, 4, 2, 6, dtype=torch.int64), 2), bound=True),
    "grid": behind(lambda x: F.grid_sample(x, grid(), align_corners=False), bound=True),
    "triangle": behind(lambda x: x.tril(), bound=True),
    "nearest": resized("nearest", scale_factor=2),
    "nearest, odd": resized("nearest", size=(10, 4)),
    "nearest, by a fraction": resized("nearest", scale_factor=1.7),
    "nearest exact": resized("nearest-exact", size=(10, 4)),
    "bilinear": resized("bilinear", scale_factor=2),
    "bilinear, smaller": resized("bilinear", size=(3, 4)),
    "bilinear, corners": resized("bilinear", size=(13, 4), align_corners=True),
    "bilinear, by a fraction": resized("bilinear", scale_factor=1.6),
    "bilinear, smooth": resized("bilinear", size=(4, 9), antialias=True),
    "bicubic": resized("bicubic", scale_factor=2),
    "bicubic, corners": resized("bicubic", size=(13, 4), align_corners=True),
    "bicubic, smooth": resized("bicubic", size=(3, 9), antialias=True),
    "nearest 1d": alone(lambda x: F.interpolate(x, scale_factor=2), 2, 5),
    "nearest 3d": alone(lambda x: F.interpolate(x, scale_factor=2), *VOLUME),
    "nearest exact 1d": alone(lambda x: F.interpolate(x, 7, mode="nearest-exact"), 2, 5),
    "nearest exact 3d": alone(lambda x: F.interpolate(x, scale_factor=2, mode="nearest-exact"), *VOLUME),
    "linear": alone(lambda x: F.interpolate(x, scale_factor=2, mode="linear"), 2, 5),
    "trilinear": alone(lambda x: F.interpolate(x, scale_factor=2, mode="trilinear"), *VOLUME),
    "mean": behind(lambda x: x.mean((2, 3))),
    "mean over channels": behind(lambda x: x.mean(1, keepdim=True)),
    "mean over the batch": behind(lambda x: x.mean(0)),
    "mean of all": behind(lambda x: x.mean()),
    "sum": behind(lambda x: x.sum(-1)),
    "sum of all": behind(lambda x: x.sum()),
    "sum, no dimensions": behind(lambda x: x.sum(())),
    "largest": behind(lambda x: x.amax((2,)), draws=40),
    "smallest": behind(lambda x: x.amin((3,), keepdim=True), draws=40),
    "largest and smallest": behind(most, draws=40),
    "largest and where": behind(lambda x: x.max(2)[0], draws=40),
    "smallest and where": behind(lambda x: x.min(2, keepdim=True)[0], draws=40),
    "middle and where": behind(lambda x: x.median(3)[0], draws=60),
    "largest of all": alone(lambda x: x.max(), 2, 3, 3, draws=80),
    "smallest of all": alone(lambda x: x.min(), 2, 3, 3, draws=80),
    "smooth largest": behind(lambda x: x.logsumexp((2, 3))),
    "norm": behind(lambda x: torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)),
    "norm, older": behind(lambda x: aten.norm.ScalarOpt_dim(x, 2, [1])),
    "norm of all": behind(lambda x: aten.norm.Scalar(x, 2)),
    "product": behind(lambda x: x.prod(1)),
    "product of all": alone(lambda x: x.prod(), 2, 3, 3),
    "variance, uncorrected": behind(lambda x: x.var(1, correction=0)),
    "deviation, uncorrected": behind(lambda x: x.std((2, 3), correction=0, keepdim=True)),
    "variance": behind(lambda x: x.var((2, 3))),
    "variance, older": behind(lambda x: aten.var.dim(x, [3])),
    "variance of all": behind(lambda x: aten.var.default(x)),
    "deviation": behind(lambda x: x.std(1)),
    "deviation, older": behind(lambda x: aten.std.dim(x, [3])),
    "deviation of all": behind(lambda x: aten.std.default(x)),
    "variance and mean, older": behind(lambda x: torch.cat(aten.var_mean.dim(x, [2]), 1)),
    "deviation and mean, older": behind(lambda x: torch.cat(aten.std_mean.dim(x, [2]), 1)),
    "variance and mean": behind(lambda x: torch.cat(torch.var_mean(x, (2, 3), correction=0), 1)),
    "deviation and mean": behind(lambda x: torch.cat(torch.std_mean(x, (2, 3), correction=0), 1)),
    "cumulative sum": behind(lambda x: x.cumsum(2)),
    "cumulative product": behind(lambda x: x.cumprod(1)),
    "sort": behind(lambda x: x.sort(2)[0], draws=80),
    "sort, stable": behind(lambda x: x.sort(dim=2, stable=True)[0], draws=80),
    "topk": alone(lambda x: x.topk(2, 2)[0], 2, 4, 3, draws=80),
    "spectrum": behind(lambda x: torch.fft.fft2(x).abs()),
    "spectrum of reals": behind(lambda x: torch.fft.rfft2(x).abs()),
    "spectrum and back": behind(lambda x: torch.fft.irfft2(torch.fft.rfft2(x)), bound=True),
    "spectrum and back, complex": behind(lambda x: torch.fft.ifft2(torch.fft.fft2(x)).abs(), bound=True),
    "unpooled": behind(lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), bound=True),
    "unpooled 3d": alone(lambda x: F.max_unpool3d(*F.max_pool3d(x, 2, return_indices=True), 2), 2, 4, 4, 4, bound=True),
}
