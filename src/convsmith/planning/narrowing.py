"""Channels of a group that stay, and what that leaves of the layers around it."""

from dataclasses import dataclass

from convsmith.structure.channel_groups import ChannelGroup


@dataclass(frozen=True)
class Narrowing:
    """Channels of a group that stay, in order."""

    group: ChannelGroup
    kept: tuple[int, ...]

    @property
    def width(self) -> int:
        """How many they are."""
        return len(self.kept)

    def shares(self, call: str) -> dict[int, float]:
        """By dimension of a call's weight that holds channels of the group, the share of it that stays."""
        stay = {-1, *self.kept}
        parts = [part for part in self.group.parts if part.call == call and part.tensor.endswith("weight")]
        return {part.dim: sum(channel in stay for channel in part.channels) / len(part.channels) for part in parts}
