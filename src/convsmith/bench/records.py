"""What a benchmark found: latencies with spread and verdict, what was skipped, and where it was measured."""

import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from convsmith.errors import FileError

FASTER, SLOWER, UNSURE = "faster", "slower", "unclear"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Latency:
    """One model in one runtime at one batch size.

    Attributes:
        model: Its name.
        runtime: Where it ran.
        batch: Images at once.
        median_ms: Median over the rounds, milliseconds a batch.
        q1_ms: Lower quartile.
        q3_ms: Upper quartile.
        runs: Rounds.
        ratio: Its median over that of the first model that runs there.
        ratio_low: Lower bound of the ratio with 95 % confidence (bootstrap over rounds; Efron, Annals of Statistics
            1979).
        ratio_high: Its upper bound.
        verdict: Faster or slower where the bounds exclude 1; empty for the first model.
    """

    model: str
    runtime: str
    batch: int
    median_ms: float
    q1_ms: float
    q3_ms: float
    runs: int
    ratio: float
    ratio_low: float
    ratio_high: float
    verdict: str


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Skipped:
    """What could not be measured, and why."""

    model: str
    runtime: str
    batch: int
    reason: str


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Bench:
    """All that was measured in one benchmark.

    Attributes:
        cells: One record for each model, runtime and batch size.
        skipped: What could not be measured, and why.
        input: The shape of the images, (channels, height, width).
        threads: How many CPU threads were used.
        seed: What the images were drawn by.
        versions: Versions of the packages.
        hardware: What the machine is.
        pairs: The int8 files again, each compared with the first of them, round by round.
        notes: Which models were measured in another number type than that of their weights.
    """

    cells: tuple[Latency, ...]
    skipped: tuple[Skipped, ...]
    input: tuple[int, ...]
    threads: int
    seed: int
    versions: dict[str, Any]
    hardware: dict[str, Any]
    pairs: tuple[Latency, ...] = ()
    notes: tuple[str, ...] = ()

    def rows(self, precisions: Mapping[str, str]) -> list[dict[str, Any]]:
        """One flat record for each cell, as JSON values, with the number type of each model, by name.

        Files in 8-bit integers that stand beside a model are `NAME int8`.
        """
        return [
            {
                "model": cell.model, "runtime": cell.runtime, "precision": precisions.get(cell.model, "int8"),
                "batch": cell.batch, "threads": self.threads, "median_ms": cell.median_ms,
                "quartiles_ms": [cell.q1_ms, cell.q3_ms], "ratio": cell.ratio,
                "interval": [cell.ratio_low, cell.ratio_high], "verdict": cell.verdict,
            }
            for cell in self.cells
        ]  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        record: dict[str, Any] = json.loads(self.to_json())
        return record

    def to_json(self) -> str:
        """As text."""
        return _BENCH.dump_json(self, indent=1).decode()

    @classmethod
    def from_json(cls, text: str, source: str = "the benchmark") -> Self:
        """Read what `to_json` wrote; raises ConvsmithError naming `source`."""
        try:
            return _BENCH.validate_json(text)  # type: ignore[return-value]
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the text"
            raise FileError(f"{source}: {where}: {first['msg']}; measure again with `convsmith bench`.") from None


_BENCH: TypeAdapter[Bench] = TypeAdapter(Bench)
