"""The search for cheaper blocks as a user calls it: what the enumeration finds, ranked, the best few measured."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from torch import nn

from convsmith.errors import PlanError
from convsmith.kernels.spec import Convolution, ConvSpec
from convsmith.latency.latencies import median_seconds
from convsmith.planning.search.sequences import Found, cheapest_by_form, find_sequences

Rank = Literal["macs", "params", "latency"]
MEASURED = 5


def search_blocks(
    conv: ConvSpec | Convolution,
    in_a_row: int = 1,
    *,
    size: tuple[int, ...] = (32, 32),
    rank: Rank = "macs",
    measured: int = MEASURED,
    seconds: float = 0.5,
) -> tuple[Found, ...]:
    """All sequences of up to four kernels that see what a convolution sees, need each kernel for it, and cost less.

        Quality: 3DRF(block) = 3DRF(convolution);   Compact: without any kernel of the block it is smaller

    Kernels are depthwise, pointwise, grouped, grouped pointwise and rolling pointwise ones, and the channel shuffle. A
    k x k window is taken whole, as 1 x k and k x 1, or as smaller odd sizes that add up. From Wang et al., CIKM 2021.

    Args:
        conv: What is replaced: the geometry of a convolution, or the convolution itself.
        in_a_row: How many convolutions like this one are replaced; more than 1 needs equal width and stride 1.
            Blocks with `copies` stand in each of their places; only together do they see as much.
        size: Height and width in pixels of the map that it reads.
        rank: `macs` or `params` comes first. `latency` measures the cheapest forms in eager torch on this machine, one
            image at a time, and puts them first.
        measured: How many forms `latency` measures.
        seconds: About how long each of them is measured.

    Returns:
        What was found, best first; `cost` is its MACs as a share of what it replaces.

    Raises:
        ConvsmithError: On a convolution that no sequence replaces, a row or map that does not fit, or an unknown
            rank.

    >>> found = {str(each.block): each for each in search_blocks(ConvSpec(64, 64))}
    >>> [round(found[name].cost, 3) for name in ("dw-pw", "seq:dw,rpw(g=4,o=0.5),rpw(g=4,o=0.5)")]
    [0.127, 0.071]
    """
    if rank not in ("macs", "params", "latency"):
        raise PlanError(f"search: rank must be macs, params or latency, got {rank!r}.")
    spec = conv if isinstance(conv, ConvSpec) else ConvSpec.of(conv)
    sequences = find_sequences(spec, size, in_a_row)
    if rank == "params":
        return tuple(sorted(sequences, key=lambda each: (each.params, each.macs)))
    if rank == "latency":
        best = _timed(cheapest_by_form(sequences)[:measured], size, seconds)
        fastest = sorted(best, key=lambda each: each.latency or 0.0)
        taken = {sequence.label for sequence in best}
        return (*fastest, *(sequence for sequence in sequences if sequence.label not in taken))
    return sequences


def _timed(found: Sequence[Found], size: tuple[int, ...], seconds: float) -> list[Found]:
    """Each with its median latency; run in turns, so that what else the machine does strikes all alike."""
    if not found:
        return []
    models = {
        sequence.label: nn.Sequential(*(sequence.block.build(sequence.conv) for _ in range(sequence.copies)))
        for sequence in found
    }
    medians = median_seconds(models, (found[0].conv.in_channels, *size), seconds)
    return [replace(sequence, latency=medians[sequence.label]) for sequence in found]
