"""What the scores mean: idle layers, saturated stages, channels that never mix, and the input that the window needs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from convsmith.graph import Graph, Node
from convsmith.reach import Reach
from convsmith.score.growth import gain
from convsmith.score.metric import score
from convsmith.score.records import Layer, Scores, Stage
from convsmith.structure.stages import StageNodes, Stages, entry, find_stages, is_depthwise, is_spatial
from convsmith.structure.units import find_units
from convsmith.text import times

Kind = Literal["idle", "saturated", "unmixed", "input"]
THRESHOLD = 0.08  # with it VGG16 on 32 pixels has idle what `organize` moves away, and what that makes has none


@dataclass(frozen=True)
class Finding:
    """One thing to know about a layer or a stage, in a sentence that says what to do.

    `share` is what an idle layer costs of the net's MACs, with the layers up to the next counted convolution.
    """

    kind: Kind
    advice: str
    layer: str | None = None
    stage: str | None = None
    share: float = 0.0

    def to_dict(self) -> dict[str, str]:
        """As in the JSON: `layer` or `stage`, kind and advice."""
        place = {"layer": self.layer} if self.layer is not None else {"stage": self.stage or ""}
        return {**place, "kind": self.kind, "advice": self.advice}


@dataclass(frozen=True)
class Advice:
    """The findings of a net, and the places of its idle layers in `Scores.layers`."""

    findings: tuple[Finding, ...] = ()
    idle: frozenset[int] = frozenset()

    def added_to(self, scores: Scores) -> dict[str, Any]:
        """The scores' record with `idle` at every layer, and `advice`."""
        record = scores.to_dict()
        for place, layer in enumerate(record["layers"]):
            layer["idle"] = place in self.idle
        return record | {"advice": [finding.to_dict() for finding in self.findings]}


@dataclass(frozen=True)
class _Step:
    """A counted convolution with the layers up to the next one: shares of the net's gain and MACs, and what it saw.

    `own`: the share of the MACs that is the convolution's alone. `late`: the window before it is all of the stage's
    entry already. `blind`: its reach is the one before it.
    """

    node: Node
    gain: float
    macs: float
    own: float
    late: bool
    blind: bool


def advise(graph: Graph, scores: Scores, *, threshold: float = THRESHOLD) -> Advice:
    """Say what the scores of a graph mean, as findings in the order of the net.

    Four kinds of findings are told:

    - `idle`: a convolution that sees nothing new, or that gains little for its cost. It sees nothing new where its
      exact reach from the stage's entry is that of the layer before. It gains little where its share of the net's gain
      is less than `threshold` times its share of the MACs. Both shares include the layers up to the next counted
      convolution.
    - `saturated`: a stage whose map is all seen before its last convolution.
    - `unmixed`: a stage in which no layer reaches all channels that enter it.
    - `input`: the smallest input that the widest window fits into. Layers that begin when all of a smaller input is
      seen are predicted to be unproductive by Richter et al. ("Should You Go Deeper?", 2021).

    Args:
        graph: A captured graph.
        scores: Its scores; gain is taken by the published rule whatever their convention.
        threshold: The share of gain per share of MACs below which a layer is idle.

    Returns:
        The findings, and the places of idle layers in `scores.layers`.

    Raises:
        ConvsmithError: When scores are of a convention or count that is not known.

    >>> import convsmith as cs, torch
    >>> graph = cs.capture(cs.build("vgg16", input=(3, 32, 32), classes=10), torch.zeros(1, 3, 32, 32))
    >>> [finding.layer for finding in advise(graph, cs.score(graph)).findings if finding.kind == "idle"]
    ['features.20', 'features.27', 'features.30', 'features.37', 'features.40']
    """
    if scores.convention != "published":
        scores = score(graph, alpha=scores.alpha, clamp=scores.clamp, count=scores.count)
    reaches = graph.reaches()
    stages = find_stages(graph, reaches)
    remedies = _Remedies.find(graph, stages, scores)
    places = {node.name: place for place, node in enumerate(graph.layers)}
    findings: list[Finding] = []
    idle = set()
    for stage in stages.stages:
        seen = graph.reaches(entry(graph, stage.counted[0]), _names(stage))
        layers = {node: scores.layers[places[node.name]] for node in stage.nodes if node.kind}
        steps = list(_steps(graph, stage, layers, seen, scores))
        for step in steps:
            if step.blind or step.gain < threshold * step.macs:
                idle.add(places[step.node.name])
                findings.append(_idle(step, remedies.of(step, stage, "it")))
        findings += _saturated(stage, steps, remedies)
        findings += _unmixed(graph, stage, seen)
    return Advice((*findings, *_input(graph, reaches)), frozenset(idle))


def _steps(
    graph: Graph, stage: StageNodes, layers: Mapping[Node, Layer], seen: Mapping[str, Reach], scores: Scores
) -> Iterator[_Step]:
    nodes = list(layers)
    starts = [nodes.index(node) for node in stage.counted]
    stops = [*starts[1:], len(nodes)]
    starts[0] = 0  # what stands before the first counted one belongs to it
    size = graph.shapes[entry(graph, stage.counted[0])][2:]
    for node, start, stop in zip(stage.counted, starts, stops, strict=True):
        source = graph.sources(node)[0]
        if node.name in seen and source in seen:
            before, after = seen[source].extent(), seen[node.name].extent()
            stage_layers = [layers[other] for other in nodes[start:stop]]
            yield _Step(
                node,
                gain=sum(layer.gain for layer in stage_layers) / (scores.gain or 1.0),
                macs=sum(layer.macs for layer in stage_layers) / max(scores.macs, 1),
                own=layers[node].macs / max(scores.macs, 1),
                late=before.window == size,
                blind=after.volume <= before.volume,
            )


def _idle(step: _Step, remedy: str) -> Finding:
    name = step.node.module
    why = "sees nothing new" if step.blind else f"adds {100 * step.gain:.1f} % of the gain"
    cost = f"{100 * step.own:.1f} % of the MACs"
    if f"{step.own:.3f}" != f"{step.macs:.3f}":
        cost += f", {100 * step.macs:.1f} % with the layers up to the next"
    sentence = f"{name or 'The layer'} {why} for {cost}; {remedy}."
    return Finding("idle", sentence, layer=name, share=step.macs)


def _saturated(stage: StageNodes, steps: Sequence[_Step], remedies: "_Remedies") -> Iterator[Finding]:
    late = [step for step in steps if step.late]
    if late:
        sentence = f"{stage.name} sees all of its {_px(stage.map)} map after {len(steps) - len(late)} of {len(steps)}"
        remedy = remedies.of(late[-1], stage, "the rest")
        yield Finding("saturated", f"{sentence} convolutions; {remedy}.", stage=stage.name)


def _names(stage: StageNodes) -> list[str]:
    return [node.name for node in stage.nodes]


def _unmixed(graph: Graph, stage: StageNodes, seen: Mapping[str, Reach]) -> Iterator[Finding]:
    reached, entering = _channels(graph, stage, stage.counted[0], seen)
    if reached < entering:  # what stands before the first counted one may mix
        first = next(node for node in stage.nodes if node.kind)
        reached, entering = _channels(graph, stage, first, graph.reaches(entry(graph, first), wanted=_names(stage)))
    if reached < entering:
        sentence = (
            f"{stage.name} never mixes: its layers reach {reached:.4g} of {entering} channels that enter, at most"
        )
        yield Finding("unmixed", f"{sentence}; add a pointwise convolution, as block dw-pw has.", stage=stage.name)


def _channels(graph: Graph, stage: StageNodes, first: Node, seen: Mapping[str, Reach]) -> tuple[float, int]:
    """The most channels that a convolution of the stage reaches, and how many there are where `first` begins."""
    entering = graph.shapes[entry(graph, first)][1]
    convs = [node for node in stage.nodes if node.kind == "conv" and node.name in seen]
    return max((seen[node.name].extent().channels for node in convs), default=entering), entering


def _input(graph: Graph, reaches: Mapping[str, Reach]) -> Iterator[Finding]:
    """The widest free window behind a sliding kernel, and how many convolutions begin when all of the input is seen."""
    spatial = [node for node in graph.layers if is_spatial(node) and node.name in reaches]
    if not spatial:
        return
    size = reaches[graph.inputs[0].name].map
    free = {n: reaches[n.name].extent().window_free for n in graph.nodes if n.name in reaches and _slides(n)}
    needed = tuple(map(max, zip(*free.values(), strict=True)))
    widest = max(spatial, key=lambda node: max(free[node]))
    if all(need <= side for need, side in zip(needed, size, strict=True)):
        sentence = f"The net's window of {_px(needed)} fits into the input of {_px(size)}, which is large enough."
    else:
        late = sum(reaches[graph.sources(node)[0]].extent().window == size for node in spatial)
        sentence = f"The net's window needs an input of {_px(needed)}; at {_px(size)}, {late or 'none'} of "
        sentence += f"{len(spatial)} convolutions start where all of it is seen already"
        sentence += ": enlarge the input, or remove units by `organize --blocks`." if late else "."
    yield Finding("input", sentence, layer=widest.module)


def _slides(node: Node) -> bool:
    """A spatial convolution, or a pool that leaves a map behind."""
    return is_spatial(node) or ("kernel_size" in node.call.args and prod(node.call.out[2:]) > 1)


@dataclass(frozen=True)
class _Remedies:
    """What `organize` or `decompose` can do: the convolutions in units that move, and the best stage for one more.

    `worth` is what one more would add there, as a share of the net's gain; `decomposable` are modules that blocks can
    stand in for.
    """

    movable: frozenset[str]
    decomposable: frozenset[str]
    best: str
    worth: float

    @classmethod
    def find(cls, graph: Graph, stages: Stages, scores: Scores) -> "_Remedies":
        """Best is the stage in which one more 3x3 convolution gains most by the published rule."""
        units, _ = find_units(graph, stages)
        movable = frozenset(name for stage in units for unit in stage if unit.uniform for name in unit.convs)
        open_stages = [stage.name for stage in stages.stages if any(node.name in movable for node in stage.counted)]
        worth = {own.name: _one_more(own, scores.alpha) for own in scores.stages if own.name in open_stages}
        best = max(worth, key=worth.__getitem__, default="")
        return cls(movable, graph.convolutions, best, worth.get(best, 0.0) / (scores.gain or 1.0))

    def of(self, step: _Step, stage: StageNodes, what: str) -> str:
        """The verb that can act on a convolution of a stage."""
        if step.node.name in self.movable:
            moved = self.best != stage.name and self.worth > step.gain
            verb = f"`organize` can move {what} to {self.best}" if moved else f"`organize --blocks` can take {what} out"
            kept = "; it needs training, while `decompose` keeps trained weights"
            return f"{verb}{kept}" if self._decomposes(step.node) else verb
        if self._decomposes(step.node):
            return f"`decompose` makes {what} cheaper"
        return f"leave {what} out, or place {what} where the map is larger"

    def _decomposes(self, node: Node) -> bool:
        return node.module in self.decomposable and not is_depthwise(node)


def _one_more(stage: Stage, alpha: float) -> float:
    side = 2 * stage.layers + 1
    return gain(side**2, (side + 2) ** 2, stage.width**2, alpha)


def _px(size: Sequence[int]) -> str:
    """A square by its side."""
    return times(size[:1] if len(set(size)) == 1 else size) + " px"
