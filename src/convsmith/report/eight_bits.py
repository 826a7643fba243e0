"""Whether a plan is worth it beside int8 of the original alone, in one sentence."""

from convsmith.bench import FASTER, Bench, Latency
from convsmith.export import ExportCheck
from convsmith.report.numbers import percent
from convsmith.report.records import NetRecords, RunRecords


def quantize_only(bench: Bench, base: NetRecords, new: NetRecords, names: tuple[str, str]) -> list[str]:
    """A sentence where the int8 file of `base` is as fast as that of `new` in every setting, and as exact; else none.

    names: what the two are called in the benchmark. As fast: the other is faster in none, by the 95 % bounds of their
    ratio. As exact: at least its accuracy, or where none was measured, at most its error.
    """
    before, after = (_int8(net) for net in (base, new))
    pairs = [cell for cell in bench.pairs if cell.model == f"{names[1]} int8"]
    if before is None or after is None or not pairs or any(cell.verdict == FASTER for cell in pairs):
        return []
    if not _as_exact(before, after):
        return []
    sentences = [
        _told(bench, f"{name} int8", pairs[0], file) for name, file in zip(names, (before, after), strict=True)
    ]
    return [f"quantize only: int8 of the original takes {sentences[0]}; int8 of the plan takes {sentences[1]}."]


def run_quantize_only(run: RunRecords) -> list[str]:
    """The same of a whole run."""
    names = (run.baseline.name, run.optimized.name)
    return [] if run.bench is None else quantize_only(run.bench, run.baseline, run.optimized, names)


def _int8(net: NetRecords) -> ExportCheck | None:
    return next((file for file in net.exports if file.precision == "int8"), None)


def _as_exact(before: ExportCheck, after: ExportCheck) -> bool:
    if before.accuracy is not None and after.accuracy is not None:
        return before.accuracy.int8 >= after.accuracy.int8
    return (before.output_error or 0.0) <= (after.output_error or 0.0)


def _told(bench: Bench, name: str, like: Latency, file: ExportCheck) -> str:
    cell = next(c for c in bench.cells if (c.model, c.runtime, c.batch) == (name, like.runtime, like.batch))
    exact = "" if file.accuracy is None else f" at top-1 {percent(file.accuracy.int8)}"
    return f"{cell.ratio:.2f}x the float original ({cell.runtime}, batch {cell.batch}){exact}"
