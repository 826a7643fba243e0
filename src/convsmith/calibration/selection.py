"""Which channels of a group the layers that read them can best do without, by second moments of these layers."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from convsmith.algebra.elimination import Reader, eliminate
from convsmith.algebra.fitting import Target
from convsmith.algebra.second_moments import Statistics
from convsmith.calibration.fitting import fitted_to
from convsmith.calibration.refitting import refittable
from convsmith.graph import Graph
from convsmith.kernels.spec import is_plain
from convsmith.structure.channel_groups import ChannelGroup, Part


def unread(graph: Graph, group: ChannelGroup) -> str | None:
    """Why the moments of the layers that read a group cannot tell which of its channels count; None where they can."""
    for part in group.consumers:
        if not refittable(graph, graph.by_name[part.call]):
            return f"{part.module or 'the net'} reads its channels and is no convolution that data can refit"
    if len({len(atom) for atom in group.atoms}) > 1:
        return "its channels go in sets of different sizes"
    return None if group.consumers else "no layer reads its channels"


def order_of(
    model: nn.Module, graph: Graph, group: ChannelGroup, statistics: Mapping[str, Statistics]
) -> tuple[list[int], list[float]]:
    """Atoms of a group, those that are missed least first, and the readers' errors once each is gone: see `eliminate`.

    statistics: of each layer that reads the channels, on the net as it is.
    """
    return eliminate([_reader(model, graph, part, group, statistics) for part in group.consumers])


def kept_of(group: ChannelGroup, order: Sequence[int], width: int) -> tuple[int, ...]:
    """The channels that stay where a group keeps `width` of them and the first atoms of `order` go."""
    gone = (group.width - width) // len(group.atoms[0])
    out = {channel for atom in order[:gone] for channel in group.atoms[atom]}
    return tuple(channel for channel in range(group.width) if channel not in out)


def columns(part: Part, channels: Sequence[int], window: int) -> Tensor:
    """Which inputs (C K,) of a layer the channels of a group are."""
    wanted = set(channels)
    places = torch.tensor([place for place, channel in enumerate(part.channels) if channel in wanted])
    return (places[:, None] * window + torch.arange(window)).flatten()


def mask(part: Part, kept: Sequence[int]) -> Tensor:
    """Which input channels (C,) of a layer stay, those of other groups among them."""
    stay = {-1, *kept}
    return torch.tensor([channel in stay for channel in part.channels])


def _reader(
    model: nn.Module, graph: Graph, part: Part, group: ChannelGroup, statistics: Mapping[str, Statistics]
) -> Reader:
    conv = model.get_submodule(part.module)
    assert is_plain(conv)
    weight = conv.weight.detach().flatten(2)
    target = Target.of(weight, fitted_to(graph, part.module, statistics[part.module]))
    return Reader(target, torch.stack([columns(part, atom, weight.shape[2]) for atom in group.atoms]))
