"""What the net's output loses without some channels of a group, and which of them go first."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from convsmith.algebra.dense import refit
from convsmith.algebra.second_moments import Statistics
from convsmith.blocks.base import EVEN, taps
from convsmith.calibration.fitting import fitted_to
from convsmith.calibration.selection import kept_of, mask, order_of, unread
from convsmith.graph import Graph
from convsmith.graph.plain import copied
from convsmith.kernels.spec import is_plain
from convsmith.plan import Refusal
from convsmith.planning.narrowing import Narrowing
from convsmith.planning.prices import Prices
from convsmith.planning.pricing import Effect, Shifted
from convsmith.structure.channel_groups import ChannelGroup, Part, find_groups

# Widths tried of a group, evenly from the widest to the narrowest.
TRIED = 6


def narrowable(graph: Graph, keep: Sequence[str]) -> tuple[list[ChannelGroup], list[Refusal]]:
    """Groups that data can narrow: made by one layer, and read by convolutions whose weights can be solved anew."""
    groups, refusals = find_groups(graph)
    narrowed = []
    for group in groups:
        reason = _unfit(graph, group, keep)
        narrowed += [] if reason else [group]
        refusals += [Refusal(group.name[0], reason)] if reason else []
    return narrowed, refusals


def _unfit(graph: Graph, group: ChannelGroup, keep: Sequence[str]) -> str | None:
    if not group.hidden:
        return "an addition joins its channels with those of other layers, so they can only be cut together with them"
    if kept := [path for path in group.modules if path in keep]:
        return f"{kept[0]} was asked to be kept"
    return unread(graph, group)


def narrowings(
    model: nn.Module,
    graph: Graph,
    group: ChannelGroup,
    statistics: Mapping[str, Statistics],
    effect: "Effect | None",
    prices: Prices,
    multiple: int = EVEN,
) -> list[tuple[Narrowing, float]]:
    """Widths of a group, widest first, with the squared relative error of the net's output at each."""
    order, errors = order_of(model, graph, group, statistics)
    steps = []
    for gone in _counts(group, order, multiple):
        kept = kept_of(group, order, group.width - gone * len(group.atoms[0]))
        here = errors[gone - 1]

        def price(kept: tuple[int, ...] = kept, here: float = here) -> tuple[float, float]:
            if effect is None:
                return here, here
            modules = {
                part.module: _refitted(model, graph, part, kept, statistics[part.module]) for part in group.consumers
            }
            return here, effect.of(modules)

        steps.append((Narrowing(group, kept), prices.output(" + ".join(group.name), f"narrow:{len(kept)}", price)))
    return steps


def _counts(group: ChannelGroup, order: Sequence[int], multiple: int) -> list[int]:
    """How many sets of channels go, few first: widths are multiples of `multiple`, or where that is all, of halves."""
    size = len(group.atoms[0])
    step = multiple if group.width > multiple else max(1, group.width // 2)
    counts = [gone for gone in range(1, len(order) + 1) if (group.width - gone * size) % step == 0]
    if len(counts) > TRIED:
        counts = sorted({counts[round(i * (len(counts) - 1) / (TRIED - 1))] for i in range(TRIED)})
    return counts


def _refitted(model: nn.Module, graph: Graph, part: Part, kept: Sequence[int], statistics: Statistics) -> nn.Module:
    """A layer that reads only the channels kept, its other weights solved anew."""
    conv = copied(model.get_submodule(part.module))
    assert is_plain(conv)
    solution = refit(taps(conv), fitted_to(graph, part.module, statistics), kept=mask(part, kept))
    with torch.no_grad():
        conv.weight.copy_(solution.factors[0].view_as(conv.weight))
        if conv.bias is not None and solution.bias is not None:
            conv.bias.copy_(solution.bias)
    if conv.bias is None and solution.bias is not None:
        return nn.Sequential(conv, Shifted(solution.bias.view(-1, *(1 for _ in conv.kernel_size))))
    return conv
