"""Plans as plain data: edits and refusals by module path, each with its reason; totals follow from the edits."""

import json
from dataclasses import field
from functools import wraps
from html import escape
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from convsmith.bounds import UNITS, check_count, check_input
from convsmith.errors import PlanError, at
from convsmith.markup import table
from convsmith.target import Target

_STRICT = ConfigDict(extra="forbid")

Unit = Annotated[tuple[str, ...], Field(min_length=1)]
Change = tuple[int, int]  # before and after
Milliseconds = tuple[float, float]
BY_HAND = "by hand"
T = TypeVar("T")


def _spoken(record: type[T]) -> type[T]:
    """Have a record of pydantic's tell in a sentence what it cannot be made of."""
    begin = record.__init__

    @wraps(begin)
    def init(self: T, *args: Any, **values: Any) -> None:
        try:
            begin(self, *args, **values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            got = f"{where}: got {first['input']!r:.60}, of type {type(first['input']).__name__}"
            raise PlanError(f"{record.__name__}: {got}; {first['msg']}.") from None

    record.__init__ = init  # type: ignore[method-assign, assignment]
    return record


@_spoken
@dataclass(frozen=True, config=_STRICT)
class Totals:
    """A net in numbers.

    Attributes:
        blocks: Units per stage.
        gain: Gain by the published rule.
        params: Parameters.
        macs: Multiply-accumulates, batch 1.
        value: The sum of gain^(1/4).
    """

    blocks: tuple[int, ...]
    gain: float
    params: int
    macs: int
    value: float = 0.0


@_spoken
@dataclass(frozen=True, config=_STRICT)
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


@_spoken
@dataclass(frozen=True, config=_STRICT)
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


@_spoken
@dataclass(frozen=True, config=_STRICT)
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


@_spoken
@dataclass(frozen=True, config=_STRICT)
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


@_spoken
@dataclass(frozen=True, config=_STRICT)
class Narrow:
    """Cut channels out, wherever they are made, changed and read.

    Attributes:
        group: Paths of the layers that make the channels, in order of execution: they name the group.
        width: How many channels are left.
        kept: Which, of the group's 0 and up; None where they are chosen as the plan is applied, those with the largest
            product of the norms of the weights that make and that read them.
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


@_spoken
@dataclass(frozen=True, config=_STRICT)
class Request:
    """What a planner was asked for.

    `max_macs` and `max_latency` are multiples of the base's; `keep` are layers to leave alone and `overrides` the
    blocks of layers that have one of their own. `by` says what chose: `costs` alone, or the `errors` on images. `width`
    and `depth` say whether channels and units might go. `target` is where latency was measured; None for eager torch,
    one image.
    """

    block: str
    max_macs: float | None = None
    keep: tuple[str, ...] = ()
    max_latency: float | None = None
    overrides: dict[str, str] = field(default_factory=dict)
    by: Literal["costs", "errors"] = "costs"
    width: bool = False
    depth: bool = False
    target: Target | None = None

    @property
    def limited(self) -> bool:
        """Whether a limit chose among ranks."""
        return self.max_macs is not None or self.max_latency is not None


Edit = Annotated[Repeat | Remove | Replace | Merge | Narrow, Field(discriminator="kind")]


@_spoken
@dataclass(frozen=True, config=_STRICT)
class Refusal:
    """A layer or stage that was left alone.

    Attributes:
        layer: Its name.
        reason: Why, and what can be done.
    """

    layer: str
    reason: str


@_spoken
@dataclass(frozen=True, repr=False, config=_STRICT)
class Plan:
    """What to do to one model on one input shape.

    Edits may be taken out, changed or added by hand. What the plan makes is what its edits say; `new` follows from
    them.

    Attributes:
        model: The name of the net.
        input: Its input, (channels, height, width).
        fingerprint: Tells this model from others.
        base: The net before all edits.
        edits: What is done, each with its reason.
        refusals: What was left alone, and why.
        stages: Names of the stages that `base.blocks` counts.
        asked: What the planner was asked for.
        base_ms: Milliseconds that the model took, where latency was measured.
        call: How the model is called, where that is not with one image of `input`: args and kwargs as JSON values.
        measured_ms: Milliseconds of the model and of the planned net, with random weights, in turns in the target.

    >>> plan = Plan("toy", (3, 8, 8), "0" * 16, Totals((1,), 8.0, 10, 20), (Replace("0", "dw-pw", macs=(20, 9)),), ())
    >>> plan.new.macs, Plan.from_json(plan.to_json()) == plan
    (9, True)
    """

    model: str
    input: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
    fingerprint: str
    base: Totals
    edits: tuple[Edit, ...]
    refusals: tuple[Refusal, ...]
    stages: tuple[str, ...] = ()
    asked: Request | None = None
    base_ms: float | None = None
    call: dict[str, Any] | None = None
    measured_ms: Milliseconds | None = None

    @property
    def new(self) -> Totals:
        """The net after all edits, by what each says of itself; `apply` works that out anew."""
        base, edits = self.base, self.edits
        params, macs = (sum(_added(getattr(edit, name)) for edit in edits) for name in ("params", "macs"))
        gain, value = (getattr(base, name) + sum(getattr(edit, name) for edit in edits) for name in ("gain", "value"))
        return Totals(self._blocks(), gain, base.params + params, base.macs + macs, value)

    @property
    def latency_ms(self) -> Milliseconds | None:
        """The model's milliseconds before and, by what the edits' modules took, after; None where none was measured."""
        if self.base_ms is None:
            return None
        return self.base_ms, self.base_ms + sum(_added(edit.latency_ms or (0.0, 0.0)) for edit in self.edits)

    def _blocks(self) -> tuple[int, ...]:
        more = dict.fromkeys(self.stages, 0)
        for edit in self.edits:
            if isinstance(edit, Repeat | Remove) and edit.stage in more:
                more[edit.stage] += edit.copies if isinstance(edit, Repeat) else -1
        names = [*self.stages, *[""] * (len(self.base.blocks) - len(self.stages))]
        return tuple(count + more.get(name, 0) for name, count in zip(names, self.base.blocks, strict=True))

    def __post_init__(self) -> None:
        """Raises ConvsmithError on an input, stages, or copies of a unit, that nothing is planned for."""
        check_input(self.input, "the plan's input")
        if len(self.stages) > len(self.base.blocks):
            raise PlanError(
                f"Plan: it names {len(self.stages)} stages and counts the units of {len(self.base.blocks)}."
            )
        for edit in self.edits:
            if isinstance(edit, Repeat):
                check_count(edit.copies, UNITS, f"copies of {edit.unit[0]}")

    def to_json(self) -> str:
        """The plan as text to read, edit and review; `new` and `latency_ms` are told too, and not read back."""
        record: dict[str, Any] = _PLAN.dump_python(self, mode="json")
        told = {
            "base": record["base"],
            "new": _TOTALS.dump_python(self.new, mode="json"),
            "latency_ms": self.latency_ms,
        }
        for name in ("call", "measured_ms"):
            if record[name] is None:
                del record[name]
        order = ("model", "input", "fingerprint", "stages", "asked", "base_ms")
        return json.dumps({name: record[name] for name in order} | told | record, indent=1)

    @classmethod
    def from_json(cls, text: str, source: str = "the plan") -> Self:
        """Read a plan; raises ConvsmithError naming `source` and the first field that does not fit."""
        try:
            record = json.loads(text)
            told = {"new", "latency_ms"}  # which follow from the edits
            if isinstance(record, dict):
                record = {name: value for name, value in record.items() if name not in told}
            with at(source):
                return _PLAN.validate_json(json.dumps(record))  # type: ignore[return-value]
        except ValidationError as error:
            first = error.errors()[0]
            where, what = ".".join(map(str, first["loc"])) or "the text", first["msg"]
        except (TypeError, ValueError, RecursionError) as error:
            where, what = "the text", str(error)
        raise PlanError(f"{source} is not a plan: {where}: {what}; write one with `convsmith organize` or `decompose`.")

    def __repr__(self) -> str:
        base, new = self.base, self.new
        cost = f"{new.macs / base.macs:.2f}x MACs, {new.params / base.params:.2f}x parameters" if base.macs else ""
        return f"Plan({self.model}: {len(self.edits)} edits, {len(self.refusals)} refusals, {cost})"

    def _repr_html_(self) -> str:
        """For notebooks: the totals, and an edit a row."""
        rows = [
            (edit.name, edit.block if isinstance(edit, Replace | Narrow) else edit.kind, _told(edit.macs), edit.reason)
            for edit in self.edits
        ]
        return f"<p>{escape(repr(self))}</p>" + table(("layer", "change", "MACs", "reason"), rows)


def _added(change: tuple[Any, Any]) -> Any:
    return change[1] - change[0]


def _told(macs: Change) -> str:
    return f"{macs[0] / 1e6:.3g}M to {macs[1] / 1e6:.3g}M"


_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)
_TOTALS: TypeAdapter[Totals] = TypeAdapter(Totals)
