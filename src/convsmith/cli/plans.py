"""The commands that look and plan: analyze, organize, decompose."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType

from convsmith.cli import options as opt
from convsmith.cli.groups import Aimed, Calibrating, Edited, Form, Place, Reading, command
from convsmith.cli.terminal import Terminal
from convsmith.errors import ConvsmithError
from convsmith.files import write_text

if TYPE_CHECKING:  # takes seconds to import
    from convsmith.plan import Plan

# Each command imports what it works with: torch takes seconds, which --help and wrong usage need not.


@command("convsmith analyze vgg16 --input 3,32,32 --html vgg16.html", "docs/metric.md")
def analyze(
    terminal: Terminal,
    model: opt.Reference,
    form: Form,
    aimed: Aimed,
    convention: Annotated[
        opt.Convention, typer.Option(help="The paper's counting, or the reach on the real graph.")
    ] = "published",
    alpha: Annotated[float, typer.Option(min=0, help="How fast gain fades as the map fills.")] = 3.0,
    clamp: Annotated[bool, typer.Option("--clamp", help="Stop the side at the map's (published convention).")] = False,
    count: Annotated[opt.Counting, typer.Option(help="Multiplications alone, or what ptflops counts.")] = "plain",
    share: Annotated[bool, typer.Option("--share", help="A column with each layer's share of the MACs.")] = False,
    time: Annotated[
        bool, typer.Option("--time", help="A column of measured time (default: one image, eager; see --target).")
    ] = False,
    compare: Annotated[
        str | None, typer.Option("--compare", metavar="OTHER", help="A second model, to stand beside the first.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="PATH", help="Write one self-contained page.")] = None,
) -> None:
    """Show what each layer sees (3D receptive field), gains and costs."""
    terminal.progress(f"loading {model}", 0, 1)
    from convsmith.cli.looking import Look
    from convsmith.report import compare_page, compare_table, scores_page, scores_table

    aim = aimed.aim()
    if aim is not None and not time:
        raise ConvsmithError("analyze: a target is where --time measures; give --time too, or no --target.")
    look = Look(terminal, convention, alpha, clamp, count, time, form.trust, aim, aimed.latency_file)
    (scores, advice), record, milliseconds = look.at(model, form.wish())
    tables = [scores_table(scores, advice, share=share, milliseconds=milliseconds)]
    other = None
    if compare:
        other, record["compare"], milliseconds = look.at(compare, Form(form.input, form.classes).wish())
        tables += [scores_table(*other, share=share, milliseconds=milliseconds)]
        tables += [compare_table(((scores, advice), other))]
    if html is not None:
        write_text(html, compare_page(((scores, advice), other)) if other else scores_page(scores, advice))
    terminal.record(record)
    terminal.show(*tables, *([f"page: {html}"] if html else []))


@command("convsmith organize vgg16 --input 3,32,32 --max-macs 1.2x -o plan.json", "docs/metric.md")
def organize(
    terminal: Terminal,
    model: opt.Reference,
    form: Form,
    aimed: Aimed,
    blocks: Annotated[int | None, typer.Option(min=1, help="Units in all (default: as many as there are).")] = None,
    max_macs: opt.MaxMacs = None,
    max_params: opt.MaxParams = None,
    max_latency: opt.MaxLatency = None,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Show what no other spread beats in gain and costs.")
    ] = False,
    by: Annotated[
        opt.Objective, typer.Option(help="What to have most of: gain, or value, the sum of gain^(1/4).")
    ] = "gain",
    out: opt.PlanFile = None,
) -> None:
    """Plan better stages: move blocks to where they add the most gain."""
    terminal.progress(f"loading {model}", 0, 1)
    from convsmith.latency.measure import measure_latency
    from convsmith.load import load
    from convsmith.planning.organize import organize as plan_stages
    from convsmith.planning.organize import pareto as front_of
    from convsmith.report import pareto_table, plan_table

    loaded, aim = load(model, form.wish(), trust=form.trust), aimed.aim()
    terminal.notes(loaded.notes)
    graph = loaded.graph()
    latencies = None
    if max_latency is not None:
        latencies = measure_latency(
            loaded.model, graph, target=aim, file=aimed.latency_file, progress=terminal.progress
        )
    terminal.progress("organizing", 0, 1)
    plan = plan_stages(
        graph, blocks=blocks, max_macs=max_macs, max_params=max_params, max_latency=max_latency, latencies=latencies,
        by=by, model=loaded.model, target=aim, latency_file=aimed.latency_file, progress=terminal.progress,
    )  # fmt: skip
    record = told(plan) | {"gain": plan.new.gain - plan.base.gain}
    tables = [plan_table(plan)]
    if pareto:
        front = front_of(graph, blocks=blocks, by=by)
        tables.append(pareto_table(front))
        record["pareto"] = [
            {name: value for name, value in asdict(choice).items() if name != "seconds"} for choice in front
        ]
    publish(terminal, plan, out, record, tables)


@command("convsmith decompose resnet20 --max-macs 0.5x --data digits -o plan.json", "docs/decomposition.md")
def decompose(
    terminal: Terminal,
    model: opt.Reference,
    form: Reading,
    edited: Edited,
    calibrating: Calibrating,
    aimed: Aimed,
    place: Place,
    block: opt.BlockName = "auto",
    max_macs: opt.MaxMacs = None,
    max_latency: opt.MaxLatency = None,
    weights: opt.Weights = None,
    method: opt.Fitted = None,
    out: opt.PlanFile = None,
) -> None:
    """Plan a cheaper block for every convolution that admits one."""
    exceptions = edited.told()
    terminal.progress(f"loading {model}", 0, 1)
    from convsmith.cli.calibration import statistics_of, warn_of_weights, with_images
    from convsmith.planning.decompose import decompose as plan_blocks
    from convsmith.report import plan_table
    from convsmith.train import lent, pick_device

    fits = calibrating.data is not None or calibrating.stats is not None
    loaded, taken = with_images(terminal, model, form, weights, calibrating, place.seed)
    if fits:
        warn_of_weights(terminal, loaded)
    prices = out.with_suffix(".prices") if out is not None and calibrating.data is not None else None
    with lent(loaded.model, pick_device(place.device if fits else "cpu")):
        plan = plan_blocks(
            loaded.graph(), block=block, max_macs=max_macs, max_latency=max_latency, model=loaded.model, data=taken,
            images=calibrating.images, method=method, seed=place.seed, progress=terminal.progress, **exceptions,
            statistics=statistics_of(terminal, loaded, taken, calibrating.stats, None, place.seed),
            prices=prices, target=aimed.aim(), latency_file=aimed.latency_file,
        )  # fmt: skip
    publish(terminal, plan, out, told(plan), [plan_table(plan)])
    if prices is not None:
        prices.unlink(missing_ok=True)  # a command that was stopped goes on from it


def told(plan: "Plan") -> dict[str, Any]:
    """A plan as the commands print it in JSON: totals, edits, refusals."""
    edits = [{**asdict(edit), "layer": edit.name} for edit in plan.edits]
    return {
        "base": asdict(plan.base), "new": asdict(plan.new),
        "edits": edits, "refusals": [asdict(refusal) for refusal in plan.refusals],
    } | {
        name: value for name in ("latency_ms", "measured_ms") if (value := getattr(plan, name)) is not None
    }  # fmt: skip


def publish(
    out: Terminal, plan: "Plan", path: Path | None, record: dict[str, Any], tables: list[RenderableType]
) -> None:
    """Files first, so that what cannot be written is told before anything is shown."""
    if path is not None:
        write_text(path, plan.to_json() + "\n")
    out.record(record)
    out.show(*tables, *([f"plan: {path}"] if path else []))
