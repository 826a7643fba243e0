"""Plans as plain data: what is done to a model, what was left alone, and why."""

from convsmith.plan.edits import BY_HAND, Change, Edit, Merge, Milliseconds, Narrow, Remove, Repeat, Replace, Unit
from convsmith.plan.plan import Plan, Refusal, Request, Totals

__all__ = [
    "BY_HAND",
    "Change",
    "Edit",
    "Merge",
    "Milliseconds",
    "Narrow",
    "Plan",
    "Refusal",
    "Remove",
    "Repeat",
    "Replace",
    "Request",
    "Totals",
    "Unit",
]
