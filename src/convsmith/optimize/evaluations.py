"""How accurate a net is after each step of its way: evaluated, kept beside the net, and carried on with it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import isclose, nan
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, TypeAdapter, ValidationError
from torch import nn

from convsmith.data import Data
from convsmith.errors import ConvsmithError
from convsmith.files import write_text
from convsmith.load import Loaded
from convsmith.plan import Merge, Plan, Remove, Repeat, Replace
from convsmith.progress import Progress, silent
from convsmith.train import Evaluation, evaluate

EVALUATIONS = "evaluations.json"
TEACHER, ORIGINAL, NORMS, TRAINED, RECOVERED = "teacher", "original", "BatchNorm re-estimated", "trained", "recovered"
MADE = {Remove: "organized", Repeat: "organized", Merge: "expanded", Replace: "decomposed"}  # the last counts
STARTS = tuple(dict.fromkeys((ORIGINAL, *MADE.values())))  # what the first evaluation is of

# JSON has no word for what a net with NaN in it answers: it is kept as null.
Loss = Annotated[float, BeforeValidator(lambda value: nan if value is None else value)]


@dataclass(frozen=True)
class Evaluated:
    """One evaluation on the test split: after which step, accuracies in [0, 1], mean loss, images.

    kept: False where the step was undone, as it made the net worse; the figures are then those of the net without it.
    """

    when: str
    top1: float
    top5: float
    loss: Loss
    images: int
    kept: bool = True

    @property
    def label(self) -> str:
        """The step in words."""
        return self.when if self.kept else f"{self.when} (not kept)"


_RECORDS = TypeAdapter(tuple[Evaluated, ...])


def read_evaluations(folder: Path) -> tuple[Evaluated, ...]:
    """The evaluations kept in a folder, none where there are none; raises ConvsmithError where they cannot be read."""
    path = folder / EVALUATIONS
    if not path.is_file():
        return ()
    try:
        return _RECORDS.validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise ConvsmithError(f"{path}: cannot be read as evaluations of a net; remove it.") from error


def made_by(plans: Sequence[Plan]) -> str:
    """What plans made of a net, in one word: decomposed, expanded, organized, or original where they edit nothing."""
    kinds = {type(edit) for plan in plans for edit in plan.edits}
    return [ORIGINAL, *(word for kind, word in MADE.items() if kind in kinds)][-1]


class Evaluations:
    """The evaluations of one net on one test split, in the order of its steps.

    told: those that are known already. progress: told how far an evaluation is.
    """

    def __init__(
        self, data: Data, device: str | None, told: Sequence[Evaluated] = (), progress: Progress = silent
    ) -> None:
        self._data, self._device, self._progress = data, device, progress
        self.told = list(told)

    def begin(self, net: Loaded, teacher: nn.Module | None = None) -> None:
        """Evaluate a net as it comes, and its teacher, which stands in front.

        What was known is kept where it ends with this very accuracy: it is of these weights and this data.
        """
        now = self._evaluated(made_by(net.plans), net.model)
        last = self.told[-1] if self.told else replace(now, images=0)
        if last.images != now.images or not isclose(last.loss, now.loss, rel_tol=1e-2):  # other weights, or data
            self.told = [now]
        if teacher is not None:
            self.told = [
                self._evaluated(TEACHER, teacher),
                *(evaluation for evaluation in self.told if evaluation.when != TEACHER),
            ]

    def renormed(self, model: nn.Module, kept: bool) -> None:
        """Evaluate a net whose BatchNorm statistics were estimated anew; it is as before where they were not kept."""
        undone = replace(self.told[-1], when=NORMS, kept=False)
        self.told.append(self._evaluated(NORMS, model) if kept else undone)

    @property
    def worse(self) -> bool:
        """Whether the last step made the net worse."""
        return len(self.told) > 1 and self.told[-1].kept and self.told[-1].top1 < self.told[-2].top1

    def undo(self) -> None:
        """Note that the last step was undone."""
        self.told[-1] = replace(self.told[-2], when=self.told[-1].when, kept=False)

    def finish(self, when: str, final: Evaluation, kept: bool = True) -> None:
        """Add the evaluation that ended a training, not kept where no epoch was better; once, where it came back."""
        last = Evaluated(when, **asdict(final), kept=kept)
        self.told += [last] if self.told[-1:] != [last] else []

    def write(self, folder: Path) -> None:
        """Keep them in the net's folder."""
        write_text(folder / EVALUATIONS, _RECORDS.dump_json(tuple(self.told), indent=1).decode() + "\n")

    def _evaluated(self, when: str, model: nn.Module) -> Evaluated:
        evaluation = evaluate(model, self._data.test, device=self._device, progress=self._progress)
        return Evaluated(when, **asdict(evaluation))
