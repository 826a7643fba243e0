"""The page of a run, and the report of any folder."""

import re
from html import escape
from pathlib import Path

from convsmith.bench import FASTER, SLOWER, UNSURE, Bench, Latency
from convsmith.files import write_text
from convsmith.load import holds_model
from convsmith.report import charts, net_charts
from convsmith.report.charts import Figure
from convsmith.report.eight_bits import run_quantize_only
from convsmith.report.falls import alerts, run_falls
from convsmith.report.folder_page import folder_page
from convsmith.report.html import Tile, facts, layer_table, page, pair, plot, section, table, tiles
from convsmith.report.net_pages import COST_NOTE
from convsmith.report.numbers import change, count, milliseconds, percent
from convsmith.report.records import RunRecords, read_run
from convsmith.report.sections import accuracy_section, exports_section, plan_section
from convsmith.report.tables import before_after_rows
from convsmith.text import times


def report(folder: str | Path) -> Path:
    """Write report.html into the folder of a run, or of one net, from its records.

    The page needs no network and follows light and dark. Of a run that was stopped it shows what is there so far.

    Args:
        folder: What `optimize`, `apply`, `train` or `expand` wrote.

    Returns:
        The path of the page.

    Raises:
        ConvsmithError: When the folder holds neither a run nor a net, or a record cannot be read.

    >>> import tempfile
    >>> from convsmith.load import load, save
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(load("resnet20"), Path(folder))
    ...     report(folder).name
    'report.html'
    """
    folder = Path(folder)
    path = folder / "report.html"
    write_text(path, folder_page(folder) if holds_model(folder) else run_page(read_run(folder)))
    return path


def run_page(records: RunRecords) -> str:
    """A run's report as one page."""
    figures: dict[str, Figure] = {}
    body = [
        f"<h1>{escape(str(records.settings.get('model')))}, before and after</h1>",
        f'<p class="lead">{_whole_numbers(escape(headline(records)))}</p>',
        *alerts(run_falls(records)),
        *(f'<p class="lead">{escape(text)}</p>' for text in run_quantize_only(records)),
        tiles(_tiles(records)),
        section("Before and after", "", table(("", ">baseline", ">optimized", ">change"), before_after_rows(records))),
        *_net_sections(records, figures),
        *accuracy_section(records.nets, figures),
        *([_latency(records.bench, figures)] if records.bench else []),
        *(
            plan_section(name, plan)
            for name, plan in (("Stages", records.organize), ("Blocks", records.decompose))
            if plan is not None
        ),
        *exports_section(records.nets),
        _origin(records),
    ]
    return page(f"convsmith: {records.settings.get('model')}", body, figures)


GROWTH_NOTE = (
    "The 3D receptive field (window x channels) grows from the start of each stage; the dotted line is the stage's "
    "whole map. Layers far above it see little that is new: they are better placed where the map is larger."
)


def headline(records: RunRecords) -> str:
    """What the run did, in one or two sentences."""
    base, new = records.nets
    if not (base.scores and new.scores):
        return "The run has not come to a plan yet; the same command goes on with it."
    a, b = base.scores, new.scores
    edits = sum(len(plan.edits) for plan in (records.organize, records.decompose) if plan)
    costs = f"{count(a.params)} parameters to {count(b.params)} and {count(a.macs)} MACs to {count(b.macs)}"
    sentence = f"{edits} edits take {costs}."
    if not (base.final and new.final):
        return f"{sentence} The run is not finished; the same command goes on with it."
    points = 100 * (new.final.top1 - base.final.top1)
    return (
        f"{sentence} Accuracy on {new.final.images:,} test images: {percent(base.final.top1)} before, "
        f"{percent(new.final.top1)} after ({points:+.2f} points). {_speed(records)}"
    ).strip()


def _speed(records: RunRecords) -> str:
    """All that was measured in one sentence, so that no setting is picked out."""
    ratios = [cell.ratio for cell in _optimized(records)]
    if not ratios:
        return ""
    told = [cell.verdict for cell in _optimized(records)]
    verdicts = ", ".join(
        f"{verdict} in {told.count(verdict)}" for verdict in (FASTER, SLOWER, UNSURE) if verdict in told
    )
    return f"Latency is {min(ratios):.2f}x to {max(ratios):.2f}x the baseline's: {verdicts} of {len(told)} settings."


def _optimized(records: RunRecords) -> list[Latency]:
    """What was measured of the optimized net and compared with the baseline."""
    cells = records.bench.cells if records.bench else ()
    return [cell for cell in cells if cell.model == records.optimized.name and cell.verdict]


def _whole_numbers(text: str) -> str:
    """Keep a number and its unit on one line."""
    return re.sub(r"(\d) ([kMGT%])", "\\1\N{NO-BREAK SPACE}\\2", text)


def _tiles(records: RunRecords) -> list[Tile]:
    base, new = records.nets
    values = []
    if base.scores and new.scores:
        pairs = {"parameters": (base.scores.params, new.scores.params), "MACs": (base.scores.macs, new.scores.macs)}
        values += [Tile(count(b), name, f"{change(a, b)} of {count(a)}") for name, (a, b) in pairs.items()]
    if base.final and new.final:
        points = f"{100 * (new.final.top1 - base.final.top1):+.2f} points"
        values.append(Tile(percent(new.final.top1), "top-1 accuracy", points))
    cells = _optimized(records)
    for cell in cells:
        if cell.batch == min(c.batch for c in cells):
            name = f"{cell.runtime}, batch {cell.batch}"
            values.append(Tile(milliseconds(cell.median_ms), name, f"{cell.ratio:.2f}x, {cell.verdict}", cell.verdict))
    return values


def _net_sections(records: RunRecords, figures: dict[str, Figure]) -> list[str]:
    nets = [(net.name, net.scores) for net in records.nets if net.scores]
    for name, scores in nets:
        figures[f"growth-{name}"] = net_charts.growth(scores)
        figures[f"cost-{name}"] = net_charts.gain_and_cost(scores)
    net_charts.same_scale([figures[f"growth-{name}"] for name, _ in nets])
    if not nets:
        return []
    tables = (f"<details><summary>Layers of {name}</summary>{layer_table(scores)}</details>" for name, scores in nets)
    return [
        section("Growth by stage", GROWTH_NOTE, pair(*(plot(f"growth-{name}", name) for name, _ in nets))),
        section("Gain and cost", COST_NOTE, pair(*(plot(f"cost-{name}", name) for name, _ in nets)), *tables),
    ]


def _latency(bench: Bench, figures: dict[str, Figure]) -> str:
    figures["latency"] = charts.latency(bench)
    rows = [
        (
            cell.runtime, str(cell.batch), cell.model, milliseconds(cell.median_ms),
            f"{cell.q1_ms:.3g} to {cell.q3_ms:.3g}",
            f"{cell.ratio:.3f} ({cell.ratio_low:.3f} to {cell.ratio_high:.3f})" if cell.verdict else "1", cell.verdict,
        )
        for cell in bench.cells
    ]  # fmt: skip
    counts = sorted({cell.runs for cell in bench.cells})
    rounds = " to ".join(map(str, counts if len(counts) < 3 else (counts[0], counts[-1])))
    note = (
        f"Median of {rounds} rounds in turn on {bench.threads} CPU threads, input {times(bench.input)}; "
        "bars show quartiles. Faster and slower are said only where the 95 % interval of the ratio excludes 1."
    )
    columns = ("runtime", ">batch", "model", ">median", ">quartiles (ms)", ">ratio (95 %)", "")
    skipped = [(skip.model, skip.runtime, str(skip.batch), skip.reason) for skip in bench.skipped]
    missed = table(("not measured", "runtime", ">batch", "why"), skipped) if skipped else ""
    return section("Latency", note, plot("latency"), table(columns, rows), missed)


def _origin(records: RunRecords) -> str:
    command = f"<pre>{escape(records.command)}</pre>" if records.command else ""
    return section(
        "Where the numbers come from", "", command, facts({"settings": records.settings} | records.environment)
    )
