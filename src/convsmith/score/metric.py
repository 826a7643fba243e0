"""The 3D receptive field (3DRF) and its gain, per layer, stage and network (Wang et al., CIKM 2021).

3DRF_k = side_k^2 * channels_k
gain_k = (3DRF_k - 3DRF_{k-1}) / 3DRF_{k-1} * exp(-alpha * 3DRF_{k-1} / V_0)
value  = sum of gain_k^POWER, which ranks whole nets better than the sum of gain_k does (ours; docs/metric.md)
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from math import exp, inf, prod
from typing import Any, Literal

from torch import nn

from convsmith.errors import ConvsmithError
from convsmith.garbage import kept_back
from convsmith.graph import Graph, Node
from convsmith.graph.call import numbers
from convsmith.graph.given import graph_of
from convsmith.markup import table
from convsmith.reach import Extent, Reach
from convsmith.structure.stages import HEAD, StageNodes, Stages, effective_kernel, entry, find_stages
from convsmith.text import times

Convention = Literal["published", "exact"]
Counting = Literal["plain", "ptflops"]

POWER = 0.25  # bench/metric.py: the accuracies of 6,561 trained nets are ranked alike from .2 to .3


@dataclass(frozen=True)
class Layer:
    """One layer: what it is, what it costs, what its stage has seen behind it, and its exact reach from the input.

    Shapes leave the batch out; `side` (height, width) and `channels` make `rf3d`; `reach` is None behind unknown ops.
    """

    name: str
    kind: str
    stage: str
    kernel: tuple[int, ...] | None
    stride: tuple[int, ...] | None
    groups: int | None
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    params: int
    macs: int
    side: tuple[int, ...] | None
    channels: float | None
    rf3d: float | None
    gain: float
    reach: Extent | None

    def to_dict(self) -> dict[str, Any]:
        """As in the JSON: `in` and `out` for the shapes."""
        record = asdict(self)
        record["in"], record["out"] = record.pop("in_shape"), record.pop("out_shape")
        return record


@dataclass(frozen=True)
class Stage:
    """One stage: the side of the map that enters it, its counted convolutions (layers), cost, gain and value."""

    name: str
    width: int
    layers: int
    params: int
    macs: int
    gain: float
    value: float


@dataclass(frozen=True, repr=False)
class Scores:
    """The scores of a captured net.

    Attributes:
        model: The name of the net.
        input: Its input, (channels, height, width).
        convention: `published` or `exact`, as `score` was asked.
        alpha: How fast gain falls with the share of the map that was seen already.
        clamp: Whether windows were cut at the stage's map.
        count: How MACs are counted, `plain` or `ptflops`.
        params: Learnable parameters.
        macs: Multiply-accumulates for one image.
        unknown_ops: Ops without a rule, and how often each is called. Where there are any, totals are lower bounds.
        stages: One record a stage; its `layers` counts the convolutions that can widen the window.
        layers: One record a layer, in order of execution.
        notes: Sentences on how far the capture holds.

    >>> import convsmith as cs, torch
    >>> scores = cs.score(cs.build("vgg11", input=(3, 32, 32), classes=10), torch.zeros(1, 3, 32, 32))
    >>> len(scores.stages), len(scores.layers), scores.lower_bound
    (5, 9, False)
    """

    model: str
    input: tuple[int, ...]
    convention: Convention
    alpha: float
    clamp: bool
    count: Counting
    params: int
    macs: int
    unknown_ops: Mapping[str, int]
    stages: tuple[Stage, ...]
    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = ()

    @property
    def lower_bound(self) -> bool:
        """Whether the totals leave something out: an op without a rule may multiply, and hold parameters."""
        return bool(self.unknown_ops)

    @property
    def gain(self) -> float:
        """The sum over the stages."""
        return sum(stage.gain for stage in self.stages)

    @property
    def value(self) -> float:
        """The sum of gain^(1/4) over the layers of all stages: what nets of like widths and cost are compared by."""
        return sum(stage.value for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """What `convsmith analyze --json` prints."""
        totals = {
            "params": self.params, "macs": self.macs, "gain": self.gain,
            "spatial_layers": sum(stage.layers for stage in self.stages), "unknown_ops": dict(self.unknown_ops),
            "value": self.value,
        }  # fmt: skip
        totals |= {"lower_bound": True} if self.lower_bound else {}
        return {
            "model": self.model, "input": list(self.input), "convention": self.convention, "alpha": self.alpha,
            "clamp": self.clamp, "count": self.count, "totals": totals, "notes": list(self.notes),
            "stages": [asdict(stage) for stage in self.stages],
            "layers": [layer.to_dict() for layer in self.layers],
        }  # fmt: skip

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(), indent=1)

    def __repr__(self) -> str:
        cost = f"{self.params / 1e6:.3g}M parameters, {self.macs / 1e6:.4g}M MACs"
        return f"Scores({self.model} on {times(self.input)}: gain {self.gain:.3f} ({self.convention}), {cost})"

    def _repr_html_(self) -> str:
        """What a notebook shows: totals, stages, and layers in a box that scrolls."""
        shape = times(self.input)
        least = "at least " if self.lower_bound else ""
        sums = f"gain {self.gain:.3f}, value {self.value:.3f} ({self.convention})"
        totals = f"{least}{self.params:,} parameters, {least}{self.macs:,} MACs, {sums}"
        stages = [
            (s.name, f"{s.width} px", f"{s.layers}", f"{s.params:,}", f"{s.macs:,}", f"{s.gain:.3f}", f"{s.value:.3f}")
            for s in self.stages
        ]
        columns = ("stage", ">map", ">layers", ">params", ">MACs", ">gain", ">value")
        return (
            f"<div><p><b>{escape(self.model)}</b> on {shape}: {totals}</p>{table(columns, stages)}"
            f'<div style="max-height:24em;overflow:auto">{table(LAYER_COLUMNS, map(_cells, self.layers))}</div></div>'
        )


LAYER_COLUMNS = ("layer", "stage", "kernel", ">in", ">out", ">params", ">MACs", ">window", ">channels", ">gain")


def _cells(layer: Layer) -> tuple[str, ...]:
    seen = (times(layer.reach.window), f"{layer.reach.channels:.4g}") if layer.reach else ("unknown", "unknown")
    kernel = times(layer.kernel) if layer.kernel else layer.kind
    shapes = times(layer.in_shape), times(layer.out_shape)
    costs = f"{layer.params:,}", f"{layer.macs:,}"
    return layer.name, layer.stage, kernel, *shapes, *costs, *seen, f"{layer.gain:.4f}"


@dataclass(frozen=True)
class Growth:
    """3DRF behind one layer of a stage, and the gain of that layer."""

    side: tuple[int, ...]
    channels: float
    gain: float


def gain(before: float, after: float, volume: float, alpha: float = 3.0) -> float:
    """The gain of growing a 3DRF from `before` to `after` on a map of `volume` V_0.

    >>> round(gain(1, 9, 32 * 32), 4)
    7.9766
    """
    return (after - before) / before * exp(-alpha * before / volume)


def value(gains: Iterable[float]) -> float:
    """The value of layers with these gains, the sum of gain^POWER: the root keeps the order of layers (ours).

    The first 3x3 of a stage gains 8, or a 5x5 24, a second one about 2: a plain sum all but counts stages.

    >>> round(value([7.98, 1.73, 0.89]), 3)
    3.799
    """
    return float(sum(max(gain, 0.0) ** POWER for gain in gains))


def published_growth(
    kernels: Sequence[tuple[int, ...]],
    size: tuple[int, ...],
    channels: float = 1.0,
    alpha: float = 3.0,
    clamp: bool = False,
) -> list[Growth]:
    """The published convention over one stage: sides add up from 1, channels are saturated and cancel.

    `kernels` are those of the stage's counted convolutions in order, `size` the map that enters the first.

    >>> [round(step.gain, 3) for step in published_growth([(3, 3)] * 3, (32, 32))]
    [7.977, 1.732, 0.892]
    """
    side, steps, volume = (1,) * len(size), [], prod(size) * channels
    for kernel in kernels:
        wider = tuple(s + k - 1 for s, k in zip(side, kernel, strict=True))
        wider = tuple(map(min, wider, size)) if clamp else wider
        added = gain(prod(side) * channels, prod(wider) * channels, volume, alpha)
        side = wider
        steps.append(Growth(side, channels, added))
    return steps


@kept_back()
def score(
    net: Graph | nn.Module,
    example: Any = None,
    *,
    convention: Convention = "published",
    alpha: float = 3.0,
    clamp: bool = False,
    count: Counting = "plain",
) -> Scores:
    """Score a net: how much each layer adds to what the net sees, and what that costs.

    The gain of a layer is the growth of its 3D receptive field (window height x width x channels), from `before` to
    `after`:

        gain = (after - before) / before * exp(-alpha * before / volume)

    Here `volume` is that of the map that enters the stage. From Wang et al., "An Efficient Quantitative Approach for
    Optimizing Convolutional Neural Networks" (CIKM 2021).

    Args:
        net: A captured graph, or a module.
        example: For a module, an input with a batch in front.
        convention: `published` follows the paper's tables. `exact` takes the reach of every tensor from its stage's
            entry, clamped by the map.
        alpha: How fast gain falls with the share of the map that was seen already; at least 0.
        clamp: For `published`, whether windows are cut at the stage's map.
        count: `plain` counts MACs as torch does; `ptflops` counts them as the paper's tables do.

    Returns:
        Scores of every layer and stage, with totals: parameters, MACs (batch 1) and gain.

    Raises:
        ConvsmithError: For an unknown convention or count, and an alpha below 0.

    >>> import convsmith as cs, torch
    >>> scores = cs.score(cs.capture(cs.build("vgg16", input=(3, 32, 32), classes=10), torch.zeros(1, 3, 32, 32)))
    >>> scores.params, scores.macs, round(scores.gain, 2)
    (14728266, 313201664, 39.06)
    """
    _check(convention, alpha, count)
    graph = graph_of(net, example)
    reaches = graph.reaches()
    stages = find_stages(graph, reaches)
    growth: dict[str, Growth] = {}
    if convention == "exact":
        growth = _exact(graph, stages.stages, alpha)
    else:
        for stage in stages.stages:
            growth |= _published(stage, alpha, clamp)
    layers = [_layer(graph, node, stages, growth.get(node.name), reaches, count) for node in graph.layers]
    return Scores(
        graph.model, graph.inputs[0].shape[1:], convention, alpha, clamp, count,
        graph.params, graph.macs if count == "plain" else graph.ptflops, graph.unknown_ops,
        tuple(_stage(stage, growth, count) for stage in stages.stages), tuple(layers), graph.notes,
    )  # fmt: skip


def _check(convention: str, alpha: float, count: str) -> None:
    if convention not in ("published", "exact"):
        raise ConvsmithError(f"Unknown convention {convention!r}; choose published or exact.")
    if count not in ("plain", "ptflops"):
        raise ConvsmithError(f"Unknown count {count!r}; choose plain or ptflops.")
    if not 0 <= alpha < inf:  # false for NaN too
        raise ConvsmithError(f"alpha is {alpha}, but a gain cannot grow with what was seen; choose a number from 0.")


def _cost(node: Node, count: Counting) -> int:
    return node.macs if count == "plain" else node.ptflops


def _published(stage: StageNodes, alpha: float, clamp: bool) -> dict[str, Growth]:
    kernels = [effective_kernel(node) for node in stage.counted]
    steps = published_growth(kernels, stage.map, stage.channels, alpha, clamp)
    by_node = dict(zip((node.name for node in stage.counted), steps, strict=True))
    current, growth = Growth((1,) * len(stage.map), float(stage.channels), 0.0), {}
    for node in stage.nodes:
        here = by_node.get(node.name)
        current = here or Growth(current.side, current.channels, 0.0)
        growth[node.name] = current
    return growth


def _exact(graph: Graph, stages: Sequence[StageNodes], alpha: float) -> dict[str, Growth]:
    """Gains from each layer's own input to its output, both counted from the stage's entry."""
    inside: dict[str, list[Node]] = defaultdict(list)  # stages on branches beside each other have one entry
    for stage in stages:
        inside[entry(graph, stage.counted[0])] += stage.nodes
    growth = {}
    for start, nodes in inside.items():
        reaches = graph.reaches(start, [node.name for node in nodes])
        volume = prod(graph.shapes[start][1:])
        for node in nodes:
            source = graph.sources(node)[0]
            if node.kind and node.name in reaches and source in reaches:
                before, after = reaches[source].extent(), reaches[node.name].extent()
                added = gain(before.volume, after.volume, volume, alpha)
                growth[node.name] = Growth(after.window, after.channels, added)
    return growth


def _layer(
    graph: Graph, node: Node, stages: Stages, growth: Growth | None, reaches: Mapping[str, Reach], count: Counting
) -> Layer:
    conv = node.kind == "conv"
    args = node.call.args
    in_stage = stages.name_of(node)
    return Layer(
        name=node.module,
        kind=node.kind,
        stage=in_stage,
        kernel=tuple(args["weight"].shape[2:]) or (1, 1) if conv else None,
        stride=numbers(args["stride"], len(node.call.out) - 2) if conv else None,
        groups=args["groups"] if conv else None,
        in_shape=tuple(node.call.input.shape[1:]),
        out_shape=tuple(node.call.out[1:]),
        params=node.params,
        macs=_cost(node, count),
        side=growth.side if growth else None,
        channels=growth.channels if growth else None,
        rf3d=growth.channels * prod(growth.side) if growth else None,
        gain=growth.gain if growth and in_stage != HEAD else 0.0,
        reach=reaches[node.name].extent() if node.name in reaches else None,
    )


def _stage(stage: StageNodes, growth: Mapping[str, Growth], count: Counting) -> Stage:
    gains = [growth[node.name].gain for node in stage.nodes if node.name in growth]
    return Stage(
        stage.name,
        stage.map[-1],
        len(stage.counted),
        sum(node.params for node in stage.nodes),
        sum(_cost(node, count) for node in stage.nodes),
        sum(gains),
        value(gains),
    )
