"""What a whole tensor sees of a source: its window, its channels, and the volume of both."""

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class Extent:
    """What a whole tensor sees of the source: the largest window (free: without borders), channels on average.

    `gated` says that a gate brought global context in besides; `bound` that the true window or set may be smaller.
    """

    window: tuple[int, ...]
    window_free: tuple[int, ...]
    channels: float
    gated: bool = False
    bound: bool = False

    @property
    def volume(self) -> float:
        """3DRF = channels x height x width (Wang et al., CIKM 2021)."""
        return self.channels * prod(self.window)
