"""Plan narrower layers: one share of the channels of every group that a single layer makes."""

from torch import Tensor, nn

from convsmith.errors import PlanError
from convsmith.graph import Graph
from convsmith.graph.given import graph_of
from convsmith.plan import Narrow, Plan, Refusal
from convsmith.planning.edits import planned
from convsmith.structure.channel_groups import ChannelGroup, fill, nearest
from convsmith.structure.widths import NOTHING, Gone, Widths

STEP = 8  # runtimes' kernels take channels by eights


def narrow(net: Graph | nn.Module, example: Tensor | None = None, *, width: float = 0.5) -> Plan:
    """Plan the same share of the channels for every hidden group: inside units, between layers in a line.

    Widths are multiples of 8, and 8 at least, as far as channels go one by one. Groups that additions join over several
    layers stay as they are.

    Args:
        net: A captured model, or a module to be captured on an example.
        example: An input of the module.
        width: The share of the channels that is left, more than 0 and less than 1.

    Returns:
        A plan of `Narrow` edits; `apply` chooses the channels.

    Raises:
        ConvsmithError: When the share is none.

    >>> import torch, convsmith as cs
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 4, 3))
    >>> plan = narrow(cs.capture(net, torch.zeros(1, 3, 8, 8)), width=0.5)
    >>> [(edit.name, edit.block, edit.macs) for edit in plan.edits]
    [('0', 'narrow:16', (49536, 24768))]
    >>> cs.apply(net, plan)[2].in_channels
    16
    """
    if not 0 < width < 1:  # true for NaN too
        raise PlanError(f"narrow: width is {width}; give the share of channels that is left, as 0.5.")
    graph = graph_of(net, example)
    widths, gone = Widths.of(graph), NOTHING
    edits, refusals = list[Narrow](), [*widths.refusals]
    for group in widths.groups:
        left = _left(group, width)
        if isinstance(left, str):
            refusals.append(Refusal(group.name[0], left))
        else:
            edit, gone = _edit(widths, group, left, gone)
            edits.append(edit)
    return planned(graph, edits, refusals)


def _left(group: ChannelGroup, share: float) -> int | str:
    """How many channels a group keeps, or why it keeps all."""
    if not group.hidden:
        return f"sums join its {group.width} channels with those of other layers"
    left = nearest(group, max(STEP, round(share * group.width / STEP) * STEP))
    return left if left < group.width else f"of its {group.width} channels none can go"


def _edit(widths: Widths, group: ChannelGroup, left: int, before: Gone) -> tuple[Narrow, Gone]:
    kept = fill(group, left, [0.0] * group.width)
    assert kept is not None  # `nearest` answers widths that can be filled
    gone = widths.without(group, kept, before)
    params, macs = zip(widths.cost(group, before), widths.cost(group, gone), strict=True)
    why = f"{left} of {group.width} channels, as asked for"
    return Narrow(group.name, left, None, why, macs, params), gone
