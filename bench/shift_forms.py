"""Forms of the channel shift, and the channel shuffle in its place, for the benchmarks on CPUs and GPUs."""

from collections.abc import Callable

import torch
from torch import Tensor

from convsmith.kernels import ChannelShift, ChannelShuffle, append_shift

Run = Callable[[], object]


def subjects(x: Tensor, groups: int) -> dict[str, Run]:
    """Runs by name, the shuffle first. For `append` the producer has written x where it is to be shifted from."""
    shift = x.shape[1] // (2 * groups)  # half a group
    buffer = torch.cat([x, torch.zeros_like(x[:, :shift])], 1)
    shuffle, copied = ChannelShuffle(groups), ChannelShift(shift)
    assert torch.equal(append_shift(buffer, shift), copied(x))
    return {
        "shuffle": lambda: shuffle(x),
        "roll": lambda: torch.roll(x, -shift, 1),
        "shift": lambda: copied(x),
        "append": lambda: append_shift(buffer, shift),
    }


def consumed(x: Tensor, groups: int) -> dict[str, Run]:
    """The same with the grouped pointwise convolution that reads the result."""
    weight = torch.randn(x.shape[1], x.shape[1] // groups, 1, 1, dtype=x.dtype, device=x.device)

    def behind(run: Run) -> Run:
        return lambda: torch.nn.functional.conv2d(run(), weight, groups=groups)  # type: ignore[arg-type]

    return {name: behind(run) for name, run in subjects(x, groups).items()}
