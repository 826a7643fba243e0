"""Read what a run has left in its folder, as far as it has come."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from convsmith.bench import Bench
from convsmith.errors import ConvsmithError, FileError
from convsmith.export import EXPORTS, ExportCheck
from convsmith.optimize import (
    BASELINE,
    BENCH,
    DECOMPOSE,
    OPTIMIZED,
    ORGANIZE,
    RECOVERED,
    RUN,
    SCORES,
    TEACHER,
    TRAINED,
    Evaluated,
    read_evaluations,
)
from convsmith.plan import Plan
from convsmith.score.records import Scores
from convsmith.train import Epoch

T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """Accuracy on the test split after a step, which is one of training where it has an epoch."""

    name: str
    top1: float
    top5: float
    loss: float
    epoch: int | None = None

    @classmethod
    def of(cls, told: Evaluated) -> Self:
        """Not of training."""
        return cls(told.label, told.top1, told.top5, told.loss)


@dataclass(frozen=True)
class NetRecords:
    """What is known of one of the two nets; empty where the run has not come to it."""

    name: str
    scores: Scores | None
    history: tuple[Epoch, ...]
    evaluations: tuple[Evaluated, ...]
    exports: tuple[ExportCheck, ...]

    @property
    def final(self) -> Evaluated | None:
        """The last evaluation."""
        return self.evaluations[-1] if self.evaluations else None

    @property
    def teacher(self) -> Evaluated | None:
        """The evaluation of the net that it learned from."""
        return next((evaluation for evaluation in self.evaluations if evaluation.when == TEACHER), None)

    @property
    def steps(self) -> tuple[Step, ...]:
        """Its own evaluations in order, those after each epoch in the place of the one that ends the training."""
        evaluations = [evaluation for evaluation in self.evaluations if evaluation.when != TEACHER]
        place = next((place for place, each in enumerate(evaluations) if each is self._training), len(evaluations))
        epochs = [Step(f"epoch {e.epoch}", e.test_top1, e.test_top5, e.test_loss, e.epoch) for e in self.history]
        return (*map(Step.of, evaluations[:place]), *epochs, *map(Step.of, evaluations[place + 1 :]))

    def label(self, told: Evaluated) -> str:
        """An evaluation's step in words, a training with its epochs."""
        if told is not self._training:
            return told.label
        return f"{told.label}, {len(self.history)} epoch{'s' * (len(self.history) > 1)}"

    @property
    def _training(self) -> Evaluated | None:
        """The evaluation that ended the training whose epochs are known."""
        ends = (
            [evaluation for evaluation in self.evaluations if evaluation.when in (TRAINED, RECOVERED)]
            if self.history
            else []
        )
        return ends[-1] if ends else None


@dataclass(frozen=True)
class RunRecords:
    """A whole run: how it was called and where, its plans, both nets, and the benchmark."""

    command: str
    settings: dict[str, Any]
    environment: dict[str, dict[str, Any]]
    organize: Plan | None
    decompose: Plan | None
    baseline: NetRecords
    optimized: NetRecords
    bench: Bench | None

    @property
    def nets(self) -> tuple[NetRecords, NetRecords]:
        """Both nets, the baseline first."""
        return self.baseline, self.optimized


def read_run(folder: str | Path) -> RunRecords:
    """Read a run's records; raises ConvsmithError where there is no run, and naming the file that cannot be read."""
    folder = Path(folder)
    if not (folder / RUN).is_file():
        raise FileError(f"{folder}: holds no run; give a folder that `convsmith optimize` wrote.")
    run = _read(folder / RUN, _RUN.validate_json) or _Run("", {}, {})
    return RunRecords(
        run.command,
        run.settings,
        run.environment,
        _read(folder / ORGANIZE, Plan.from_json),
        _read(folder / DECOMPOSE, Plan.from_json),
        read_net(folder / BASELINE),
        read_net(folder / OPTIMIZED),
        _read(folder / BENCH, Bench.from_json),
    )


@dataclass(frozen=True)
class _Run:
    command: str
    settings: dict[str, Any]
    environment: dict[str, dict[str, Any]]


_RUN = TypeAdapter(_Run)
_SCORES = TypeAdapter(Scores)
_EPOCH = TypeAdapter(Epoch)
_EXPORTS = TypeAdapter(tuple[ExportCheck, ...])


def read_net(folder: Path) -> NetRecords:
    """What is known of the net in one of a run's folders."""
    return NetRecords(
        folder.name,
        _read(folder / SCORES, read_scores),
        _read(folder / "history.jsonl", lambda text: tuple(map(_EPOCH.validate_json, text.splitlines()))) or (),
        read_evaluations(folder),
        _read(folder / EXPORTS, _EXPORTS.validate_json) or (),
    )


def read_scores(text: str) -> Scores:
    """The scores that `Scores.to_json` wrote."""
    record = json.loads(text)
    totals = record.pop("totals")
    for layer in record["layers"]:
        layer["in_shape"], layer["out_shape"] = layer.pop("in"), layer.pop("out")
    fields = {name: totals[name] for name in ("params", "macs", "unknown_ops")}
    return _SCORES.validate_python(record | fields)


def accuracy_record(nets: Sequence[NetRecords]) -> dict[str, Any]:
    """The accuracy of nets after each step and epoch, and of their teacher, as JSON values."""
    return {
        net.name: [asdict(step) for step in ((Step.of(net.teacher),) if net.teacher else ()) + net.steps]
        for net in nets
    }


def run_record(records: RunRecords) -> dict[str, Any]:
    """A run as JSON values: what each net costs and attains, and what was measured."""
    record: dict[str, Any] = {
        net.name: {
            "params": net.scores.params if net.scores else None, "macs": net.scores.macs if net.scores else None,
            "top1": net.final.top1 if net.final else None, "top5": net.final.top5 if net.final else None,
            "loss": net.final.loss if net.final else None,
        }
        for net in records.nets
    }  # fmt: skip
    return record | {"latency": [] if records.bench is None else records.bench.to_dict()["cells"]}


def _read(path: Path, parse: Callable[[str], T]) -> T | None:
    if not path.is_file():
        return None
    try:
        return parse(path.read_text(encoding="utf-8"))
    except ConvsmithError as error:
        raise FileError(f"{path}: {error}") from error
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise FileError(f"{path}: cannot be read as a record of a run; remove it and run again.") from error
