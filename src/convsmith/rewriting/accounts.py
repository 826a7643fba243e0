"""What a plan's edits cost once they are carried out, counted on the captured nets, and the proof that they add up."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from convsmith.errors import PlanError
from convsmith.graph import Graph
from convsmith.graph.call_record import read_call
from convsmith.graph.capture import capture
from convsmith.plan import Edit, Merge, Narrow, Plan, Remove, Repeat, Replace
from convsmith.structure.units import calls_inside
from convsmith.structure.widening import widening

CHANGED = "changed by hand"


def capture_for(model: nn.Module, plan: Plan) -> Graph:
    """Capture a model on the inputs that a plan was made for."""
    if plan.call is not None:
        signature = read_call(plan.call)
        args, kwargs = signature.call(signature.tensors(device="meta"))
        return capture(model, *args, name=plan.model, **kwargs) if args else capture(model, kwargs, name=plan.model)
    like = next(model.parameters(), torch.zeros(0))
    return capture(model, torch.empty(1, *plan.input, device="meta", dtype=like.dtype), name=plan.model)


def counted(
    plan: Plan,
    base: Graph,
    narrowed: Graph,
    placed: Graph,
    errors: Mapping[str, float | None],
    narrows: Sequence[Narrow] = (),
) -> Plan:
    """The plan with the costs that each edit has.

    base: the model; narrowed: the same without the channels that `narrows` took out; placed: that with blocks in the
    place of convolutions, before any unit is moved; errors: of layers whose weights were carried.
    """
    by_group = {edit.group: edit for edit in narrows}
    edits = tuple(
        by_group[edit.group] if isinstance(edit, Narrow) else _counted(edit, narrowed, placed, errors)
        for edit in plan.edits
    )
    changed = any(edit.reason == CHANGED for edit in edits)
    return replace(
        plan, base=replace(plan.base, params=base.params, macs=base.macs), edits=edits,
        measured_ms=None if changed else plan.measured_ms,
    )  # fmt: skip


def _counted(
    edit: Repeat | Remove | Replace | Merge, base: Graph, placed: Graph, errors: Mapping[str, float | None]
) -> Edit:
    if isinstance(edit, Repeat | Remove):
        return _moved(edit, placed)
    unit = edit.unit if isinstance(edit, Merge) else (edit.layer,)
    costs = list(zip(_cost(base, unit), _cost(placed, unit), strict=True))
    after = {"params": costs[0], "macs": costs[1]}
    if isinstance(edit, Merge):
        return replace(edit, params=after["params"], macs=after["macs"])
    edit = replace(edit, error=errors.get(edit.layer))
    if after == {"params": edit.params, "macs": edit.macs}:
        return edit
    # What the planner found belongs to another block.
    return replace(
        edit, params=after["params"], macs=after["macs"], quality=None, compact=None, window=(), output_error=None,
        latency_ms=None, reason=CHANGED,
    )  # fmt: skip


def _moved(edit: Repeat | Remove, placed: Graph) -> Edit:
    """A unit's costs once and gone, or with its copies, which cost more where they read more channels."""
    params, macs = _cost(placed, edit.unit)
    if isinstance(edit, Remove):
        return replace(edit, params=(params, 0), macs=(macs, 0))
    wider = widening(placed, edit.unit)
    unit_costs = (params, macs) if isinstance(wider, str) else (wider.params, wider.macs)
    after = params + edit.copies * unit_costs[0], macs + edit.copies * unit_costs[1]
    return replace(edit, params=(params, after[0]), macs=(macs, after[1]))


def _cost(graph: Graph, modules: Sequence[str]) -> tuple[int, int]:
    inside = calls_inside(graph, tuple(modules))
    return sum(node.params for node in inside), sum(node.macs for node in inside)


def prove(base: Graph, new: Graph, plan: Plan) -> None:
    """The outputs' shapes are the old ones, and costs add up to those of the net that was made."""
    before, after = ([graph.shapes[name] for name in graph.ends] for graph in (base, new))
    macs = base.macs + new.fixed_macs - base.fixed_macs  # what depends on values depends on weights too
    if before != after:
        names = ", ".join(edit.name for edit in plan.edits)
        raise PlanError(f"The plan changes the output from {before} to {after}; take out one of {names}.")
    if (new.params, macs) != (plan.new.params, plan.new.macs):
        raise PlanError(
            f"The edits add up to {plan.new.params} parameters and {plan.new.macs} MACs, and the new net has "
            f"{new.params} and {macs}; please report this plan."
        )
