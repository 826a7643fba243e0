"""The scores of a captured net, by the published convention or by the exact reach (Wang et al., CIKM 2021)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import inf, prod
from typing import Any

from torch import nn

from convsmith.errors import ConvsmithError
from convsmith.garbage import kept_back
from convsmith.graph import Graph, Node
from convsmith.graph.call import numbers
from convsmith.graph.given import graph_of
from convsmith.reach import Reach
from convsmith.score.growth import Growth, gain, published_growth, value
from convsmith.score.records import Convention, Counting, Layer, Scores, Stage
from convsmith.structure.stages import HEAD, StageNodes, Stages, effective_kernel, entry, find_stages


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
