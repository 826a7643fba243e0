"""AddressNet and Enhanced AddressNet (Zhong et al., WACV 2019), defined from what the paper's abstract says.

No published table was at hand: widths, depths and the shifts' amounts are this project's own, and no printed size or
accuracy is claimed.
"""

from typing import final

from torch import Tensor, nn

from convsmith.kernels import AddressShift, ChannelShift, Newest, ShortcutShift, normalized, pointwise
from convsmith.zoo.records import MODULES, NETS, HeadRecord, NetForms, NetRecord, StageRecord, StemRecord, Style, Unit

GROUPS = 4
WIDTHS = (256, 512, 1024)  # the hidden quarter is divided by four directions, and by twice the groups


def branch(channels: int, hidden: int, width: int, stride: int = 1) -> nn.Sequential:
    """1x1 in groups, channel shift by half a group, address shift, 1x1 in groups with the stride."""
    return nn.Sequential(
        *normalized(pointwise(channels, hidden, GROUPS), nn.ReLU()),
        ChannelShift(hidden // (2 * GROUPS)),
        AddressShift(hidden),
        *normalized(pointwise(hidden, width, GROUPS, stride)),
    )


def _widening(channels: int, width: int, stride: int) -> nn.Sequential:
    """The averaged input, and beside it the channels that make up the width."""
    pool = nn.AvgPool2d(3, stride, padding=1)
    return nn.Sequential(ShortcutShift(branch(channels, width // 4, width - channels, stride), pool), nn.ReLU())


@final
class AddedUnit(nn.Module):
    """The branch added to its input (AddressNet)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = branch(width, width // 4, width)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(b, width, h, w) -> (b, width, h, w)."""
        y: Tensor = self.act(x + self.branch(x))
        return y


def added_unit(channels: int, width: int, stride: int, style: Style) -> nn.Module:
    """A sum where the shape stays."""
    return AddedUnit(width) if stride == 1 and channels == width else _widening(channels, width, stride)


def appended_unit(channels: int, width: int, stride: int, style: Style) -> nn.Module:
    """Shortcut shift everywhere: half of the width is new and stands behind the newer half of the input.

    With the outputs of all units in one buffer, this only moves the address at which the next one reads.
    """
    if stride > 1 or channels != width:
        return _widening(channels, width, stride)
    half = width // 2
    new = nn.Sequential(*branch(width, width // 4, half), nn.ReLU())
    return ShortcutShift(new, Newest(width - half))


def _net(unit: Unit, stem: StemRecord) -> NetRecord:
    stages = tuple(StageRecord(unit, w, n, stride=2) for w, n in zip(WIDTHS, (4, 8, 4), strict=True))
    return NetRecord(stem, stages, HeadRecord("fc"), MODULES)


def _forms(unit: Unit) -> NetForms:
    return NetForms(small=_net(unit, StemRecord(24)), large=_net(unit, StemRecord(24, stride=2, pool=True)))


NETS.add("addressnet", _forms(added_unit))
NETS.add("addressnet-enhanced", _forms(appended_unit))
