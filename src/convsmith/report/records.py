"""Read what a run has left in its folder, as far as it has come."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from convsmith.bench import Bench
from convsmith.errors import ConvsmithError
from convsmith.metric import Scores
from convsmith.optimize import BASELINE, BENCH, DECOMPOSE, EVALUATIONS, EXPORTS, OPTIMIZED, ORGANIZE, RUN, SCORES
from convsmith.plan import Plan
from convsmith.train import Epoch

T = TypeVar("T")


@dataclass(frozen=True)
class Evaluated:
    """One evaluation on the test split: `when` in the run, accuracies in [0, 1], mean loss, images."""

    when: str
    top1: float
    top5: float
    loss: float
    images: int


@dataclass(frozen=True)
class Exported:
    """One exported file and its largest error against the model."""

    path: str
    format: str
    opset: int | None
    bytes: int
    max_abs_error: float
    max_rel_error: float


@dataclass(frozen=True)
class NetRecords:
    """What is known of one of the two nets; empty where the run has not come to it."""

    name: str
    scores: Scores | None
    history: tuple[Epoch, ...]
    evaluations: tuple[Evaluated, ...]
    exports: tuple[Exported, ...]

    @property
    def final(self) -> Evaluated | None:
        """The last evaluation."""
        return self.evaluations[-1] if self.evaluations else None


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
        raise ConvsmithError(f"{folder}: holds no run; give a folder that `convsmith optimize` wrote.")
    told = _read(folder / RUN, _RUN.validate_json) or _Run("", {}, {})
    return RunRecords(
        told.command,
        told.settings,
        told.environment,
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
_EVALUATIONS = TypeAdapter(tuple[Evaluated, ...])
_EXPORTS = TypeAdapter(tuple[Exported, ...])


def read_net(folder: Path) -> NetRecords:
    """What is known of the net in one of a run's folders."""
    return NetRecords(
        folder.name,
        _read(folder / SCORES, read_scores),
        _read(folder / "history.jsonl", lambda text: tuple(map(_EPOCH.validate_json, text.splitlines()))) or (),
        _read(folder / EVALUATIONS, _EVALUATIONS.validate_json) or (),
        _read(folder / EXPORTS, _EXPORTS.validate_json) or (),
    )


def read_scores(text: str) -> Scores:
    """The scores that `Scores.to_json` wrote."""
    record = json.loads(text)
    totals = record.pop("totals")
    for layer in record["layers"]:
        layer["in_shape"], layer["out_shape"] = layer.pop("in"), layer.pop("out")
    own = {name: totals[name] for name in ("params", "macs", "unknown_ops")}
    return _SCORES.validate_python(record | own)


def _read(path: Path, parse: Callable[[str], T]) -> T | None:
    if not path.is_file():
        return None
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ConvsmithError(f"{path}: cannot be read as a record of a run; remove it and run again.") from error
    except ConvsmithError as error:
        raise ConvsmithError(f"{path}: {error}") from error
