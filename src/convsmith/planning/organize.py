"""The stage-level organizer: move units to the stages where they add the most gain (Wang et al., CIKM 2021)."""

from pathlib import Path

from torch import Tensor, nn

from convsmith.calibration.calibrate import IMAGES, Images, take_images
from convsmith.errors import PlanError
from convsmith.graph import Graph
from convsmith.graph.given import bare, graph_of
from convsmith.latency.latencies import Latencies
from convsmith.limits import share_of
from convsmith.plan import Plan
from convsmith.planning.divisions import Choice, Objective, front
from convsmith.planning.pricing import Effect
from convsmith.planning.settling import aim_of, held_in, latencies_for
from convsmith.planning.stage_problem import StageProblem
from convsmith.progress import Progress, silent
from convsmith.score.metric import score
from convsmith.score.records import Scores
from convsmith.target import Target


def organize(
    net: Graph | nn.Module,
    scores: Scores | Tensor | None = None,
    *,
    blocks: int | None = None,
    max_macs: float | str | None = None,
    max_params: float | str | None = None,
    max_latency: float | str | None = None,
    latencies: Latencies | None = None,
    by: Objective = "gain",
    model: nn.Module | None = None,
    data: Images | None = None,
    images: int = IMAGES,
    seed: int = 0,
    target: Target | str | None = None,
    latency_file: Path | None = None,
    progress: Progress = silent,
) -> Plan:
    """Plan how many units each stage should have, for the largest gain of the net.

    The answer is the global optimum over all ways to divide the units between stages, at least one per stage. A tie
    goes to the later stage. Widths, pools and head stay. From Wang et al., CIKM 2021.

    With images a trained net is organized. Units go where the net's output changes least without them, and new ones
    start as the identity where they add most gain. A choice is worth the share of the net's gain that it adds, less its
    share of the squared errors of the output. The whole of those is what all movable units come to, each taken out
    alone. There are at most as many units as before, so the limits, or units that count little, pay for new ones.

    Args:
        net: A captured graph, or a module.
        scores: Of `score`, for another alpha than 3; for a module its example input.
        blocks: Units in all; by default as many as there are.
        max_macs: A limit as `0.5`, `"0.5x"`, `"50%"` or `"300M"`.
        max_params: The same of parameters.
        max_latency: The same of measured time, as `0.5`, `"0.5x"` or `"5ms"`.
        latencies: Of `measure_latency`, for a graph with a limit on latency; for a module they are measured. A copy is
            taken to run as long as its original.
        by: What to have most of: the published `gain`, or the `value`, the sum of gain^(1/4) (docs/metric.md).
        model: The module that a graph was captured from, with `data` or a target.
        data: Unlabelled images (a tensor, a data set, or batches) that tell what units of a trained net count.
        images: How many of them are taken; a batch of them judges.
        seed: Draws them from a data set.
        target: Where a limit on latency is kept, as `cs.Target.parse` takes it; the new net is measured there too.
        latency_file: With a target, where times of layers are kept.
        progress: Told of every unit that is measured.

    Returns:
        A plan that repeats and removes units; its weights need training again. With images each removal tells what the
        output loses, and copies change nothing at first.

    Raises:
        ConvsmithError: When no division of the units keeps the limits, or for an unknown `by`. For a model without
            images, or images without a model.

    >>> import convsmith as cs, torch
    >>> plan = cs.organize(cs.capture(cs.build("vgg16", input=(3, 32, 32), classes=10), torch.zeros(1, 3, 32, 32)))
    >>> plan.new.blocks, plan.new.params, round(plan.new.gain - plan.base.gain, 2)
    ((5, 4, 2, 1, 1), 5101194, 2.29)
    """
    held = bare(net if isinstance(net, nn.Module) else model)
    aim = aim_of(target, held, max_latency)
    graph, scores = _told(net, scores)
    if max_latency is not None and latencies is None:
        latencies = latencies_for(held, graph, aim, latency_file, progress)
    problem = StageProblem.of(graph, scores, latencies, by)
    if data is not None or (model is not None and max_latency is None):
        problem = problem.trained(_effect(held, data, images, seed), progress)
    limits = {
        "macs": share_of(max_macs, graph.macs, "max_macs"), "params": share_of(max_params, graph.params, "max_params"),
        "seconds": share_of(max_latency, latencies.total if latencies else 1.0, "max_latency"),
    }  # fmt: skip
    best = max(problem.choices(blocks, limits), key=problem.rank, default=None)
    if best is None:
        raise PlanError(
            f"{graph.model}: no division of {blocks or problem.blocks} units between the stages keeps the limits; "
            "allow more MACs, parameters or latency."
        )
    return held_in(aim, held, graph, latencies, problem.plan(best), progress, limits["seconds"])


def _effect(model: nn.Module | None, data: Images | None, images: int, seed: int) -> Effect:
    if model is None or data is None:
        given, lacking = ("images", "model") if model is None else ("a model", "data")
        raise PlanError(f"organize: {given} without {lacking} given; both tell what units of a trained net count.")
    return Effect(model, take_images(data, images, seed))


def _told(net: Graph | nn.Module, scores: Scores | Tensor | None) -> tuple[Graph, Scores]:
    """A graph and its scores, from a graph with or without scores, or from a module and its example input."""
    if isinstance(scores, Scores):
        return graph_of(net), scores
    graph = graph_of(net, scores)
    return graph, score(graph)


def pareto(
    net: Graph | nn.Module, scores: Scores | Tensor | None = None, *, blocks: int | None = None, by: Objective = "gain"
) -> tuple[Choice, ...]:
    """Every way to divide the units between stages that no other beats in gain, parameters and MACs at once.

    Args:
        net: A captured graph, or a module.
        scores: Scores of `score`, for another alpha than 3; for a module its example input.
        blocks: Units in all; by default as many as there are.
        by: `gain`, or `value` in its place.

    Returns:
        The choices, cheapest first. Gain is that of the whole net; parameters and MACs are differences to the net as it
        is.

    Raises:
        ConvsmithError: When the net has no stage with units that can move, or not so many units fit.

    >>> import convsmith as cs, torch
    >>> graph = cs.capture(cs.build("vgg16", input=(3, 32, 32), classes=10), torch.zeros(1, 3, 32, 32))
    >>> [choice.blocks for choice in cs.pareto(graph)][-1]
    (5, 4, 2, 1, 1)
    """
    unlimited = {"macs": float("inf"), "params": float("inf")}
    problem = StageProblem.of(*_told(net, scores), by=by)
    best = front(problem.choices(blocks, unlimited), lambda c: (-problem.rank(c)[0], c.params, c.macs))
    return tuple(sorted(best, key=lambda choice: (choice.macs, choice.params)))
