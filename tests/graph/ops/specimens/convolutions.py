"""Convolutions, pools and windows."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from convsmith.blocks import RollingPointwise
from convsmith.kernels import DimensionWise
from specimens.base import Call, Specimen, alone, aten, behind, conv, own


class Dynamic(nn.Module):
    """A convolution whose kernel is made from the input; it is a gate, so no gradient goes through it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.kernel = conv(padding=1, groups=2), nn.Linear(4, 4 * 2 * 9)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel(x.mean((2, 3))).view(4, 2, 3, 3).detach()
        return F.conv2d(self.conv(x), kernel, padding=1, groups=2)


class Standardized(nn.Module):
    """Two calls of one convolution whose weight is standardized, on the branches of a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 4, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight / self.weight.std((1, 2, 3), keepdim=True)).abs()
        return F.conv2d(F.conv2d(x, weight, padding=1), weight, padding=1) + F.conv2d(x, weight, padding=1)


def up(outputs: int = 6, **options: object) -> Specimen:
    return Specimen(nn.ConvTranspose2d(4, outputs, **options), (4, 4, 3))  # type: ignore[arg-type]


def unfolded(x: Tensor) -> Tensor:
    return F.unfold(x, (3, 2), dilation=(1, 2), padding=1, stride=(2, 1))


VOLUME = (2, 4, 4, 5)
CONVOLUTIONS = {
    "conv": Specimen(conv()),
    "conv padded": Specimen(conv(padding=1)),
    "conv strided": Specimen(conv(stride=2, padding=1)),
    "conv asymmetric": Specimen(conv(kernel=(1, 5), padding=(0, 2), stride=(1, 2))),
    "conv dilated": Specimen(conv(dilation=2, padding=2)),
    "conv even kernel": Specimen(conv(kernel=2, stride=2)),
    "conv even kernel, same": Specimen(conv(kernel=4, padding="same")),
    "conv valid": Specimen(conv(padding="valid")),
    "conv wide padding": Specimen(conv(kernel=3, padding=4, stride=3)),
    "conv grouped": Specimen(conv(outputs=6, groups=2)),
    "conv depthwise": Specimen(conv(outputs=8, groups=4, padding=1)),
    "conv depthwise over rows": Specimen(nn.Sequential(conv(padding=1, groups=2), DimensionWise(7, dim=2))),
    "conv depthwise over columns": Specimen(nn.Sequential(conv(padding=1, groups=2), DimensionWise(6, dim=3))),
    "conv 1x1": Specimen(conv(kernel=1, stride=2)),
    "conv1d": Specimen(nn.Conv1d(3, 4, 3, padding=1, stride=2), (3, 9)),
    "conv1d same": Specimen(nn.Conv1d(3, 3, 3, padding="same", groups=3), (3, 9)),
    "conv3d": Specimen(nn.Conv3d(2, 3, (1, 3, 2), padding=(0, 1, 0)), VOLUME),
    "conv3d same": Specimen(nn.Conv3d(2, 2, 3, padding="same", groups=2), VOLUME),
    "conv without a batch": alone(lambda x: F.conv2d(x[0], own(4, 2, 3, 3), groups=2)),
    "conv with its own kernel": Specimen(Dynamic()),
    "conv with a standardized weight, twice": Specimen(Standardized()),
    "conv over channels": behind(lambda x: F.conv1d(x.mean((2, 3)).unsqueeze(1), own(1, 1, 3), padding=1)),
    "conv over parts in the batch": behind(lambda x: F.conv2d(x.reshape(2, 2, 7, 6), own(3, 2, 3, 3)).view(1, 6, 5, 4)),
    "transposed": up(kernel_size=3),
    "transposed strided": up(kernel_size=3, stride=2, padding=1, output_padding=1),
    "transposed with gaps": up(kernel_size=1, stride=2),
    "transposed, kernel is stride": up(kernel_size=2, stride=2),
    "transposed dilated": up(kernel_size=(2, 3), stride=(3, 2), dilation=2, padding=1),
    "transposed grouped": up(kernel_size=4, stride=2, padding=1, groups=2),
    "transposed 1d": Specimen(nn.ConvTranspose1d(2, 3, 3, stride=2), (2, 5)),
    "transposed 3d": Specimen(nn.ConvTranspose3d(2, 2, 2, stride=2, groups=2), (2, 3, 2, 2)),
    "transposed, then strided": Specimen(nn.Sequential(nn.ConvTranspose2d(4, 4, 3, 2), conv(stride=2)), (4, 4, 4)),
    "led by offsets": behind(lambda x: deform_conv2d(x, own(1, 18, 7, 6), own(6, 2, 3, 3), padding=1), bound=True),
    "rolling": Specimen(RollingPointwise(8, 12, 4, 0.5), (8, 3, 3)),
    "rolling strided": Specimen(RollingPointwise(6, 5, 2, 0.33, stride=2), (6, 5, 5)),
    "max pool": behind(lambda x: F.max_pool2d(x, 3, 2, 1), draws=40),
    "max pool, ceil": behind(lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True), draws=40),
    "max pool, ceil, padded": behind(lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), draws=40),
    "max pool, dilated": Specimen(nn.MaxPool2d(2, 1, dilation=2), draws=40),
    "max pool 1d": Specimen(nn.MaxPool1d(3), (3, 9), draws=40),
    "max pool 3d": Specimen(nn.MaxPool3d(2), VOLUME, draws=40),
    "max pool 1d and where": alone(lambda x: aten.max_pool1d_with_indices(x, 3)[0], 3, 9, draws=40),
    "max pool and where": alone(lambda x: aten.max_pool2d_with_indices(x, 3, 2, 1)[0], draws=40),
    "max pool 3d and where": alone(lambda x: aten.max_pool3d_with_indices(x, [2])[0], *VOLUME, draws=40),
    "avg pool": behind(lambda x: F.avg_pool2d(x, 3, 2, 1)),
    "avg pool, ceil": Specimen(nn.AvgPool2d(3, 2, ceil_mode=True)),
    "avg pool, ceil, border not counted": Specimen(nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)),
    "avg pool over channels": behind(lambda x: F.avg_pool3d(x.unsqueeze(1), (3, 1, 1), 1, (1, 0, 0)).squeeze(1)),
    "avg pool 1d": Specimen(nn.AvgPool1d(3, 2), (3, 9)),
    "avg pool 3d": Specimen(nn.AvgPool3d(2), VOLUME),
    "power-average pool": behind(lambda x: F.lp_pool2d(x, 2, 3, 2)),
    "adaptive avg": behind(lambda x: F.adaptive_avg_pool2d(x, (3, 4))),
    "adaptive avg, larger": behind(lambda x: F.adaptive_avg_pool2d(x, (9, 6))),
    "adaptive avg 1d": Specimen(nn.AdaptiveAvgPool1d(4), (3, 9)),
    "adaptive avg 3d": Specimen(nn.AdaptiveAvgPool3d((2, 3, 1)), VOLUME),
    "adaptive max": Specimen(nn.AdaptiveMaxPool2d((3, 4)), draws=40),
    "adaptive max 1d": Specimen(nn.AdaptiveMaxPool1d(4), (3, 9), draws=40),
    "adaptive max 3d": Specimen(nn.AdaptiveMaxPool3d(2), VOLUME, draws=40),
    "windows of a dimension": behind(lambda x: x.unfold(2, 3, 2).unfold(3, 4, 1)),
    "columns": behind(unfolded),
    "columns, added up": behind(lambda x: F.fold(unfolded(x), (7, 6), (3, 2), (1, 2), 1, (2, 1))),
    "shifted by a kernel": Specimen(nn.Sequential(conv(groups=4, padding=1), Call(lambda x: x.roll(1, 1)), conv())),
}
