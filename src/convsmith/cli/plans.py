"""The commands that look and plan: analyze, organize, decompose."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType

from convsmith.cli import options as opt
from convsmith.cli.groups import (
    Aimed,
    Blocks,
    Calibrating,
    Counted,
    Deep,
    Edited,
    Form,
    Judging,
    Limits,
    Place,
    Reading,
    command,
)
from convsmith.cli.terminal import Terminal
from convsmith.errors import ConvsmithError
from convsmith.files import write_text
from convsmith.torchrun import rank

if TYPE_CHECKING:  # takes seconds to import
    from convsmith.plan import Plan

# Each command imports what it works with: torch takes seconds, which --help and wrong usage need not.


@command("convsmith analyze vgg16 --input 3,32,32 --html vgg16.html", "docs/metric.md")
def analyze(
    terminal: Terminal,
    model: opt.Reference,
    counted: Counted,
    form: Deep,
    aimed: Aimed,
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
    look = Look(terminal, counted, time, form.trust, aim, aimed.latency_file)
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
    limits: Limits,
    judging: Judging,
    form: Reading,
    aimed: Aimed,
    place: Place,
    blocks: Annotated[int | None, typer.Option(min=1, help="Units in all (default: as many as there are).")] = None,
    max_params: opt.MaxParams = None,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Show every plan that no other beats in gain and costs.")
    ] = False,
    by: opt.ObjectiveName = "gain",
    out: opt.PlanFile = None,
) -> None:
    """Plan better stages: move blocks to where they add the most gain.

    With --data a trained net is organized: blocks go where its output changes least without them, and new ones change
    nothing at first.
    """
    terminal.progress(f"loading {model}", 0, 1)
    from convsmith.cli.calibration import warn_of_weights, with_images
    from convsmith.latency.measure import measure_latency
    from convsmith.planning.organize import organize as plan_stages
    from convsmith.planning.organize import pareto as front_of
    from convsmith.report import pareto_table, plan_table
    from convsmith.train import lent, pick_device

    loaded, taken = with_images(terminal, model, form, judging, place.seed)
    aim = aimed.aim()
    if taken is not None:
        warn_of_weights(terminal, loaded)
    graph = loaded.graph()
    latencies = None
    if limits.max_latency is not None:
        latencies = measure_latency(
            loaded.model, graph, target=aim, file=aimed.latency_file, progress=terminal.progress
        )
    terminal.progress("organizing", 0, 1)
    with lent(loaded.model, pick_device("cpu" if taken is None else place.device)):
        plan = plan_stages(
            graph, blocks=blocks, max_params=max_params, latencies=latencies, by=by, data=taken, images=judging.images,
            model=loaded.model if taken is not None or aim is not None else None, seed=place.seed, target=aim,
            latency_file=aimed.latency_file, progress=terminal.progress, **asdict(limits),
        )  # fmt: skip
    record, tables = told(plan) | {"gain": plan.new.gain - plan.base.gain}, [plan_table(plan)]
    if pareto:
        front = front_of(graph, blocks=blocks, by=by)
        tables.append(pareto_table(front))
        hidden = ("seconds", "worth")
        record["pareto"] = [{name: x for name, x in asdict(choice).items() if name not in hidden} for choice in front]
    publish(terminal, plan, out, record, tables)


@command("convsmith decompose resnet20 --max-macs 0.5x --data digits -o plan.json", "docs/decomposition.md")
def decompose(
    terminal: Terminal,
    model: opt.Reference,
    limits: Limits,
    calibrating: Calibrating,
    blocks: Blocks,
    edited: Edited,
    form: Reading,
    aimed: Aimed,
    place: Place,
    judged: opt.Judged = None,
    out: opt.PlanFile = None,
    front: Annotated[
        bool, typer.Option("--front", help="Plan for a whole range of limits at once; accuracy where there are labels.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="PATH", help="With --front, a page with a slider over the plans.")
    ] = None,
) -> None:
    """Plan a cheaper block for every convolution that admits one."""
    asked = edited.told() | asdict(blocks) | {"target": aimed.aim(), "latency_file": aimed.latency_file}
    if front:
        _refuse_with_front(calibrating, limits, out, judged)
        _front(terminal, model, form, calibrating, place, html, asked)
        return
    if html is not None:
        raise ConvsmithError("decompose: --html shows a front; give --front too, or leave it out.")
    terminal.progress(f"loading {model}", 0, 1)
    import torch

    from convsmith.cli.calibration import statistics_of, warn_of_weights, with_images
    from convsmith.planning.decompose import decompose as plan_blocks
    from convsmith.report import plan_table
    from convsmith.train import at_work, check_alone

    if calibrating.data is None or limits.max_latency is not None:  # measuring beside others would mislead
        check_alone("decompose --max-latency" if calibrating.fits else "decompose without --data")
    torch.manual_seed(place.seed)
    loaded, taken = with_images(terminal, model, form, calibrating, place.seed)
    if calibrating.fits:
        warn_of_weights(terminal, loaded)
    prices = out.with_suffix(".prices") if out is not None and calibrating.data is not None else None
    with at_work(loaded.model, place.device if calibrating.fits else "cpu"):
        plan = plan_blocks(
            loaded.graph(), model=loaded.model, data=taken, images=calibrating.images, seed=place.seed,
            statistics=statistics_of(terminal, loaded, taken, calibrating.stats, None, place.seed),
            prices=prices, judged=judged, progress=terminal.progress, **asked, **asdict(limits),
        )  # fmt: skip
    publish(terminal, plan, out, told(plan), [plan_table(plan)])
    if prices is not None and rank() == 0:
        prices.unlink(missing_ok=True)  # a command that was stopped goes on from it


def _refuse_with_front(calibrating: Calibrating, limits: Limits, out: Path | None, judged: int | None) -> None:
    """Refuse what a front has no use for."""
    if calibrating.data is None or calibrating.stats is not None:
        raise ConvsmithError("decompose --front: plans are chosen by errors on images; give --data, and no --stats.")
    if limits != Limits() or out is not None:
        raise ConvsmithError("decompose --front: limits are a whole range, and plans many; leave limits and -o out.")
    if judged is not None:
        raise ConvsmithError("decompose --front: its plans are not judged in short; leave --judged out.")


def _front(
    terminal: Terminal, model: str, form: Reading, calibrating: Calibrating, place: Place, html: Path | None,
    asked: Mapping[str, Any],
) -> None:  # fmt: skip
    terminal.progress(f"loading {model}", 0, 1)
    from convsmith.cli.calibration import warn_of_weights
    from convsmith.optimize import front as front_of
    from convsmith.report import front_page, front_table
    from convsmith.train import lent, pick_device

    loaded, data = form.load_with(terminal, model, calibrating.data or "")
    warn_of_weights(terminal, loaded)
    with lent(loaded.model, pick_device(place.device)):
        found = front_of(
            loaded.graph(), model=loaded.model, data=data, images=calibrating.images, seed=place.seed,
            progress=terminal.progress, int8=True, **asked,
        )  # fmt: skip
    if html is not None:
        write_text(html, front_page(found))
    terminal.record(found.to_dict())
    terminal.show(front_table(found), *([f"page: {html}"] if html else []))


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
    """Files first, so that what cannot be written is told before anything is shown; the first process's alone."""
    if path is not None and rank() == 0:
        write_text(path, plan.to_json() + "\n")
    out.record(record)
    out.show(*tables, *([f"plan: {path}"] if path else []))
