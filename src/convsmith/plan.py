"""Plans as plain data: edits and refusals by module path, each with its reason, and the totals before and after."""

from dataclasses import field
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from convsmith.errors import ConvsmithError

_STRICT = ConfigDict(extra="forbid")

Unit = Annotated[tuple[str, ...], Field(min_length=1)]


@dataclass(frozen=True, config=_STRICT)
class Totals:
    """A net in four numbers: blocks per stage, published gain, parameters, multiply-accumulates (batch 1)."""

    blocks: tuple[int, ...]
    gain: float
    params: int
    macs: int


@dataclass(frozen=True, config=_STRICT)
class Repeat:
    """Put `copies` copies of a unit (neighbouring modules of one parent) right behind it."""

    unit: Unit
    copies: Annotated[int, Field(ge=1)]
    stage: str
    reason: str
    kind: Literal["repeat"] = "repeat"


@dataclass(frozen=True, config=_STRICT)
class Remove:
    """Take a unit out."""

    unit: Unit
    stage: str
    reason: str
    kind: Literal["remove"] = "remove"


@dataclass(frozen=True, config=_STRICT)
class Replace:
    """Put a block in a convolution's place.

    `macs` are the layer's before and after; `quality` says that the block sees as much as the convolution, `compact`
    that it would see less without any of its kernels. Once weights have been carried, `error` is the relative error of
    the responses, or without data that of the weight. `window` names the replaced convolutions in a row, this one among
    them, over which blocks see together as much as the convolutions did, where this block alone does not.
    """

    layer: str
    block: str
    reason: str
    macs: tuple[int, int]
    quality: bool
    compact: bool
    error: float | None = None
    window: tuple[str, ...] = ()
    kind: Literal["replace"] = "replace"


@dataclass(frozen=True, config=_STRICT)
class Merge:
    """Put one standard convolution in a pointwise's place; the depthwise before it and the modules between them go.

    `exact` says that what stood between is linear, so that trained weights are carried without loss; else they are a
    start. `bias` is what the convolution has; `macs` are the pair's before and its after.
    """

    depthwise: str
    between: tuple[str, ...]
    pointwise: str
    bias: bool
    exact: bool
    reason: str
    macs: tuple[int, int]
    kind: Literal["merge"] = "merge"

    @property
    def unit(self) -> tuple[str, ...]:
        """All modules that it puts one in the place of, in order of execution."""
        return (self.depthwise, *self.between, self.pointwise)


@dataclass(frozen=True, config=_STRICT)
class Budget:
    """What ranks were chosen under: the block asked for, a multiple of the base's MACs or latency, layers to keep.

    overrides: the blocks of layers that have one of their own.
    """

    block: str
    max_macs: float | None = None
    keep: tuple[str, ...] = ()
    max_latency: float | None = None
    overrides: dict[str, str] = field(default_factory=dict)


Edit = Annotated[Repeat | Remove | Replace | Merge, Field(discriminator="kind")]


@dataclass(frozen=True, config=_STRICT)
class Refusal:
    """A layer or stage that was left alone, and why."""

    layer: str
    reason: str


@dataclass(frozen=True, config=_STRICT)
class Plan:
    """What to do to one model on one input shape (channels, height, width); `fingerprint` tells that model from others.

    With a `budget`, ranks followed costs alone; applied with data, they are chosen anew by the error they cause.
    `latency_ms` is the model's before and, by what its modules took, after; where latency was limited.

    >>> plan = Plan("toy", (3, 8, 8), "0" * 16, Totals((1,), 8.0, 10, 20), Totals((1,), 8.0, 5, 9), (), ())
    >>> Plan.from_json(plan.to_json()) == plan
    True
    """

    model: str
    input: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
    fingerprint: str
    base: Totals
    new: Totals
    edits: tuple[Edit, ...]
    refusals: tuple[Refusal, ...]
    budget: Budget | None = None
    latency_ms: tuple[float, float] | None = None

    def to_json(self) -> str:
        """The plan as text to read, edit and review."""
        return _PLAN.dump_json(self, indent=1).decode()

    @classmethod
    def from_json(cls, text: str, source: str = "the plan") -> Self:
        """Read a plan; raises ConvsmithError naming `source` and the first field that does not fit."""
        try:
            return _PLAN.validate_json(text)  # type: ignore[return-value]
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the text"
            raise ConvsmithError(
                f"{source} is not a plan: {where}: {first['msg']}; write one with `convsmith organize` or `decompose`."
            ) from None


_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)
