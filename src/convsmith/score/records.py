"""What a net scored: records of its layers and stages, and their totals."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Literal

from convsmith.markup import table
from convsmith.reach import Extent
from convsmith.text import times

Convention = Literal["published", "exact"]
Counting = Literal["plain", "ptflops"]


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
