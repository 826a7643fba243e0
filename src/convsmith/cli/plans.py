"""The commands that look and plan: analyze, organize, decompose."""

import functools
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from convsmith.calibration.calibrate import IMAGES
from convsmith.cli import options as opt
from convsmith.cli.calibration import statistics_of, warn_of_weights, with_images
from convsmith.cli.terminal import Terminal, told_in_one_line
from convsmith.files import write_text
from convsmith.graph import Graph
from convsmith.latency.measure import measure_latency
from convsmith.load import Wish, load, load_graph
from convsmith.plan import Plan, Replace
from convsmith.planning.decompose import decompose as plan_blocks
from convsmith.planning.organize import Objective
from convsmith.planning.organize import organize as plan_stages
from convsmith.planning.organize import pareto as front_of
from convsmith.report import compare_page, compare_table, pareto_table, plan_table, scores_page, scores_table
from convsmith.score.advice import Advice, advise
from convsmith.score.metric import Convention, Counting, Scores, score


@told_in_one_line
def analyze(
    model: opt.Reference,
    convention: Annotated[
        Convention, typer.Option(help="The paper's counting, or the reach on the real graph.")
    ] = "published",
    alpha: Annotated[float, typer.Option(min=0, help="How fast gain fades as the map fills.")] = 3.0,
    clamp: Annotated[bool, typer.Option("--clamp", help="Stop the side at the map's (published convention).")] = False,
    count: Annotated[Counting, typer.Option(help="Multiplications alone, or what ptflops counts.")] = "plain",
    input: opt.Input = None,
    classes: opt.Classes = None,
    blocks_per_stage: opt.Depths = None,
    json: opt.Json = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="PATH", help="Write one self-contained page.")] = None,
    compare: Annotated[
        str | None, typer.Option("--compare", metavar="OTHER", help="A second model, to stand beside the first.")
    ] = None,
    trust: opt.Trust = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Show what each layer sees (3D receptive field), gains and costs."""
    out = Terminal(quiet=quiet, verbose=verbose, json=json)
    judge = functools.partial(_analyzed, convention=convention, alpha=alpha, clamp=clamp, count=count)
    scores, advice = judge(load_graph(model, Wish(input, classes, blocks_per_stage), trust=trust))
    record, tables = advice.added_to(scores), [scores_table(scores, advice)]
    other = judge(load_graph(compare, Wish(input, classes), trust=trust)) if compare else None
    if other is not None:
        record["compare"] = other[1].added_to(other[0])
        tables += [scores_table(*other), compare_table(((scores, advice), other))]
    if html is not None:
        write_text(html, compare_page(((scores, advice), other)) if other else scores_page(scores, advice))
    out.record(record)
    out.show(*tables, *([f"page: {html}"] if html else []))


def _analyzed(
    graph: Graph, *, convention: Convention, alpha: float, clamp: bool, count: Counting
) -> tuple[Scores, Advice]:
    scores = score(graph, convention=convention, alpha=alpha, clamp=clamp, count=count)
    return scores, advise(graph, scores)


@told_in_one_line
def organize(
    model: opt.Reference,
    blocks: Annotated[int | None, typer.Option(min=1, help="Units in all (default: as many as there are).")] = None,
    max_macs: opt.MaxMacs = None,
    max_params: opt.MaxParams = None,
    max_latency: opt.MaxLatency = None,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Show what no other spread beats in gain and costs.")
    ] = False,
    by: Annotated[
        Objective, typer.Option(help="What to have most of: gain, or value, the sum of gain^(1/4).")
    ] = "gain",
    input: opt.Input = None,
    classes: opt.Classes = None,
    blocks_per_stage: opt.Depths = None,
    output: opt.PlanFile = None,
    json: opt.Json = None,
    trust: opt.Trust = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Plan better stages: move blocks to where they add the most gain."""
    out = Terminal(quiet=quiet, verbose=verbose, json=json)
    loaded = load(model, Wish(input, classes, blocks_per_stage), trust=trust)
    graph = loaded.graph()
    plan = plan_stages(
        graph, blocks=blocks, max_macs=max_macs, max_params=max_params, max_latency=max_latency,
        latencies=None if max_latency is None else measure_latency(loaded.model, graph), by=by,
    )  # fmt: skip
    record = told(plan) | {"gain": plan.new.gain - plan.base.gain}
    tables = [plan_table(plan)]
    if pareto:
        front = front_of(graph, blocks=blocks, by=by)
        tables.append(pareto_table(front))
        record["pareto"] = [
            {name: value for name, value in asdict(choice).items() if name != "seconds"} for choice in front
        ]
    publish(out, plan, output, record, tables)


@told_in_one_line
def decompose(
    model: opt.Reference,
    block: opt.BlockName = "auto",
    max_macs: opt.MaxMacs = None,
    max_latency: opt.MaxLatency = None,
    keep: Annotated[list[str] | None, typer.Option("--keep", metavar="LAYER", help="Leave a layer alone.")] = None,
    override: opt.Overrides = None,
    weights: opt.Weights = None,
    data: opt.Calibration = None,
    images: opt.Images = IMAGES,
    stats: opt.Stats = None,
    method: Annotated[str | None, typer.Option(help="With data: whose errors ranks are chosen by.")] = None,
    input: opt.Input = None,
    classes: opt.Classes = None,
    blocks_per_stage: opt.Depths = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    seed: opt.Seed = 0,
    device: opt.Device = None,
    output: opt.PlanFile = None,
    json: opt.Json = None,
    trust: opt.Trust = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Plan a cheaper block for every convolution that admits one."""
    out = Terminal(quiet=quiet, verbose=verbose, json=json)
    wish = Wish(input, classes, blocks_per_stage, mean, std)
    loaded, taken = with_images(out, model, wish, weights, data, images, seed, trust=trust)
    if data or stats:
        warn_of_weights(out, loaded)
    from convsmith.train import lent, pick_device

    with lent(loaded.model, pick_device(device if data or stats else "cpu")):
        plan = plan_blocks(
            loaded.graph(), block=block, max_macs=max_macs, max_latency=max_latency, keep=tuple(keep or ()),
            overrides=opt.read_overrides(override or ()), model=loaded.model, data=taken, images=images,
            statistics=None if stats is None else statistics_of(loaded, taken, stats, None, seed), method=method,
            seed=seed, progress=out.progress,
        )  # fmt: skip
    publish(out, plan, output, told(plan), [plan_table(plan)])


def told(plan: Plan) -> dict[str, Any]:
    """A plan as the commands print it in JSON: totals, edits, refusals."""
    edits = [asdict(edit) for edit in plan.edits]
    for edit, told_edit in zip(plan.edits, edits, strict=True):
        if not isinstance(edit, Replace):
            told_edit["layer"] = " + ".join(edit.unit)
    return {
        "base": asdict(plan.base), "new": asdict(plan.new),
        "edits": edits, "refusals": [asdict(refusal) for refusal in plan.refusals],
    } | ({"latency_ms": plan.latency_ms} if plan.latency_ms else {})  # fmt: skip


def publish(out: Terminal, plan: Plan, path: Path | None, record: dict[str, Any], tables: list[RenderableType]) -> None:
    """Files first, so that what cannot be written is told before anything is shown."""
    if path is not None:
        write_text(path, plan.to_json() + "\n")
    out.record(record)
    out.show(*tables, *([f"plan: {path}"] if path else []))
