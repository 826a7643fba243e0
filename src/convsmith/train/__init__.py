"""Training: one resumable loop on accelerate, told by a recipe, and the evaluation of a net."""

from convsmith.torchrun import check_alone, count, rank
from convsmith.train.checkpoint import RECORDS, digest
from convsmith.train.evaluate import evaluate
from convsmith.train.loop import train
from convsmith.train.norms import Reestimated, reestimate_norms
from convsmith.train.place import fastest_precision, lent, pick_device
from convsmith.train.probe import Probe
from convsmith.train.processes import at_work, joined, leave
from convsmith.train.records import Epoch, Evaluation, History, Recipe, recipe_for, recovery_for
from convsmith.train.recover import recover
from convsmith.train.schedules import SCHEDULES
from convsmith.train.tasks import Measured, Outcome

__all__ = [
    "RECORDS",
    "SCHEDULES",
    "Epoch",
    "Evaluation",
    "History",
    "Measured",
    "Outcome",
    "Probe",
    "Recipe",
    "Reestimated",
    "at_work",
    "check_alone",
    "count",
    "digest",
    "evaluate",
    "fastest_precision",
    "joined",
    "leave",
    "lent",
    "pick_device",
    "rank",
    "recipe_for",
    "recover",
    "recovery_for",
    "reestimate_norms",
    "train",
]
