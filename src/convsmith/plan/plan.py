"""Plans as plain data: edits and refusals by module path, each with its reason; totals follow from the edits."""

import json
from dataclasses import field, replace
from html import escape
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from convsmith.bounds import UNITS, check_count, check_input
from convsmith.errors import PlanError, at
from convsmith.markup import table
from convsmith.plan.edits import Change, Edit, Milliseconds, Narrow, Remove, Repeat, Replace
from convsmith.plan.spoken import STRICT, spoken
from convsmith.target import Target


@spoken
@dataclass(frozen=True, config=STRICT)
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


@spoken
@dataclass(frozen=True, config=STRICT)
class Request:
    """What a planner was asked for.

    `max_macs` and `max_latency` are multiples of the base's. `keep` are layers to leave alone and `overrides` the
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


@spoken
@dataclass(frozen=True, config=STRICT)
class Refusal:
    """A layer or stage that was left alone.

    Attributes:
        layer: Its name.
        reason: Why, and what can be done.
    """

    layer: str
    reason: str


@spoken
@dataclass(frozen=True, repr=False, config=STRICT)
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
        """Read a plan; times measured of other edits than it has are left out.

        Raises ConvsmithError naming `source` and the first field that does not fit.
        """
        try:
            record = json.loads(text)
            told = {"new", "latency_ms"}  # which follow from the edits
            given = record.items() if isinstance(record, dict) else ()
            record = {name: value for name, value in given if name not in told} if given else record
            with at(source):
                plan: Self = _PLAN.validate_json(json.dumps(record))  # type: ignore[assignment]
            new = _TOTALS.dump_python(plan.new, mode="json")
            edited = new != dict(given).get("new", new)  # by hand: what was measured belongs to other edits
            return replace(plan, measured_ms=None) if edited else plan
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
