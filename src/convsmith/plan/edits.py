"""The edits of a plan: units repeated or removed, blocks put in, pairs merged, channels cut out."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from convsmith.plan.spoken import STRICT, spoken

Unit = Annotated[tuple[str, ...], Field(min_length=1)]
Change = tuple[int, int]  # before and after
Milliseconds = tuple[float, float]
BY_HAND = "by hand"


@spoken
@dataclass(frozen=True, config=STRICT)
class Repeat:
    """Put copies of a unit (neighbouring modules of one parent) right behind it.

    Attributes:
        unit: Paths of the unit's modules, in order of execution.
        copies: How many.
        stage: The stage that it stands in.
        reason: Why, for the user.
        params: Parameters of the unit before and, with its copies, after.
        macs: The same of MACs.
        gain: What the copies add.
        value: The same of the value.
        latency_ms: The same as `params` of milliseconds, where they were measured.
        start: What copies begin as: a `copy` of the unit and its weights, or the `identity`, which leaves the answers
            of a trained net as they are.
    """

    unit: Unit
    copies: Annotated[int, Field(ge=1)]
    stage: str = ""
    reason: str = BY_HAND
    params: Change = (0, 0)
    macs: Change = (0, 0)
    gain: float = 0.0
    value: float = 0.0
    latency_ms: Milliseconds | None = None
    start: Literal["copy", "identity"] = "copy"
    kind: Literal["repeat"] = "repeat"

    @property
    def name(self) -> str:
        """What messages call this edit."""
        return " + ".join(self.unit)


@spoken
@dataclass(frozen=True, config=STRICT)
class Remove:
    """Take a unit out.

    Attributes:
        unit: Paths of the unit's modules, in order of execution.
        stage: The stage that it stood in.
        reason: Why, for the user.
        params: Parameters of the unit before, and 0.
        macs: The same of MACs.
        gain: What its stage gains without it, negative for a loss. Where several edits remove units of one stage, what
            this one adds behind those before it.
        value: The same of the value.
        latency_ms: The same as `params` of milliseconds, where they were measured.
        output_error: Of a trained net, the measured relative error of its output without this unit alone.
    """

    unit: Unit
    stage: str = ""
    reason: str = BY_HAND
    params: Change = (0, 0)
    macs: Change = (0, 0)
    gain: float = 0.0
    value: float = 0.0
    latency_ms: Milliseconds | None = None
    output_error: float | None = None
    kind: Literal["remove"] = "remove"

    @property
    def name(self) -> str:
        """What messages call this edit."""
        return " + ".join(self.unit)


@spoken
@dataclass(frozen=True, config=STRICT)
class Replace:
    """Put a block in a convolution's place.

    Attributes:
        layer: The convolution's path.
        block: The block's text, as `parse_block` reads it.
        reason: Why, for the user.
        macs: MACs of the layer before and after.
        quality: Whether the block sees as much as the convolution; None where nobody has looked.
        compact: Whether it would see less without any one of its kernels; None where nobody has looked.
        error: Once weights are carried, the relative error of the responses, or without data that of the weight.
        window: Where this block alone sees less: the replaced convolutions in a row, itself among them, that together
            see as much as before.
        params: Parameters of the layer before and after.
        output_error: Where images chose the rank, the predicted relative error of the net's output from this edit
            alone.
        latency_ms: The same as `params` of milliseconds, where they were measured.
    """

    layer: str
    block: str
    reason: str = BY_HAND
    macs: Change = (0, 0)
    quality: bool | None = None
    compact: bool | None = None
    error: float | None = None
    window: tuple[str, ...] = ()
    params: Change = (0, 0)
    output_error: float | None = None
    latency_ms: Milliseconds | None = None
    kind: Literal["replace"] = "replace"
    gain: ClassVar[float] = 0.0  # what sees as much keeps its place in the count
    value: ClassVar[float] = 0.0

    @property
    def name(self) -> str:
        """What messages call this edit."""
        return self.layer


@spoken
@dataclass(frozen=True, config=STRICT)
class Merge:
    """Put one standard convolution in a pointwise's place; the depthwise before it and the modules between them go.

    Attributes:
        depthwise: Path of the depthwise convolution.
        between: Paths of the modules between the two.
        pointwise: Path of the pointwise convolution.
        bias: Whether the convolution has a bias.
        exact: Whether what stood between is linear, so that trained weights are carried without loss. Else they are a
            start.
        reason: Why, for the user.
        macs: MACs of the pair before, and of the convolution.
        params: The same of parameters.
        latency_ms: The same of milliseconds, where they were measured.
    """

    depthwise: str
    between: tuple[str, ...]
    pointwise: str
    bias: bool
    exact: bool
    reason: str = BY_HAND
    macs: Change = (0, 0)
    params: Change = (0, 0)
    latency_ms: Milliseconds | None = None
    kind: Literal["merge"] = "merge"
    gain: ClassVar[float] = 0.0  # the pair's one place in the count stays
    value: ClassVar[float] = 0.0

    @property
    def unit(self) -> tuple[str, ...]:
        """All modules that it puts one in the place of, in order of execution."""
        return (self.depthwise, *self.between, self.pointwise)

    @property
    def name(self) -> str:
        """What messages call this edit."""
        return " + ".join(self.unit)


@spoken
@dataclass(frozen=True, config=STRICT)
class Narrow:
    """Cut channels out, wherever they are made, changed and read.

    Attributes:
        group: Paths of the layers that make the channels, in order of execution: they name the group.
        width: How many channels are left.
        kept: Which, of the group's 0 and up. None where they are chosen as the plan is applied. Those with the largest
        product of norms stay, of the weights that make and that read them.
        reason: Why, for the user.
        macs: MACs of the layers that make, change and read the channels, before and after. Where edits before it narrow
            some of these layers too, before is behind those edits.
        params: The same of parameters.
        error: Once weights are fitted, the relative error of what reads the channels.
        output_error: Where images chose the width, the predicted relative error of the net's output from this edit
            alone.
        latency_ms: The same as `params` of milliseconds, where they were measured.
    """

    group: Unit
    width: Annotated[int, Field(ge=1)]
    kept: tuple[int, ...] | None = None
    reason: str = BY_HAND
    macs: Change = (0, 0)
    params: Change = (0, 0)
    error: float | None = None
    output_error: float | None = None
    latency_ms: Milliseconds | None = None
    kind: Literal["narrow"] = "narrow"
    gain: ClassVar[float] = 0.0  # layers see as far as before
    value: ClassVar[float] = 0.0

    @property
    def name(self) -> str:
        """What messages call this edit."""
        return " + ".join(self.group)

    @property
    def block(self) -> str:
        """What is done, as it is shown."""
        return f"narrow:{self.width}"


Edit = Annotated[Repeat | Remove | Replace | Merge | Narrow, Field(discriminator="kind")]
