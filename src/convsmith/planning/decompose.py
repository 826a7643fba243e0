"""The kernel-level decomposer: a cheaper block for each convolution, chosen by costs or by the errors on images."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from convsmith.algebra.second_moments import Statistics
from convsmith.calibration.calibrate import IMAGES, Images, form_of, take_images
from convsmith.errors import BudgetError, PlanError
from convsmith.graph import Graph
from convsmith.graph.given import bare, graph_of
from convsmith.latency.latencies import Latencies
from convsmith.latency.measure import measure_latency
from convsmith.limits import share_of
from convsmith.plan import Plan, Request
from convsmith.planning.by_cost import plan_by_cost
from convsmith.planning.by_error import Trained, plan_by_error
from convsmith.planning.settling import as_planned, measured_in
from convsmith.progress import Progress, silent
from convsmith.target import Target


def decompose(
    net: Graph | nn.Module,
    example: Tensor | None = None,
    *,
    block: str = "auto",
    max_macs: float | str | None = None,
    max_latency: float | str | None = None,
    keep: Sequence[str] = (),
    overrides: Mapping[str, str] | None = None,
    model: nn.Module | None = None,
    data: Images | None = None,
    images: int = IMAGES,
    statistics: Mapping[str, Statistics] | None = None,
    method: str | None = None,
    seed: int = 0,
    latencies: Latencies | None = None,
    progress: Progress = silent,
    prices: Path | None = None,
    width: bool | None = None,
    depth: bool | None = None,
    judged: int | None = None,
    target: Target | str | None = None,
    latency_file: Path | None = None,
) -> Plan:
    """Plan a cheaper block for every convolution that admits one (Wang et al., CIKM 2021).

    Without data, blocks follow costs. `auto` chooses per convolution among those that see as much and need each of
    their kernels for it. Without a limit it takes the cheaper of the two separable forms. Under one it takes their
    ranks, and below them what `search_blocks` finds. Where these cannot meet it, 1x1 convolutions give way too. At last
    rolling blocks come in, which see as much over several convolutions one after another. With data (or statistics) and
    a limit, each layer's block and rank are chosen by the error they cause at the net's output.

    Args:
        net: A captured graph, or a module with an `example` input.
        example: An input (batch first) for a module.
        block: `auto`, or a block's text such as `dw-pw:r=2`: one that sees less is planned and flagged.
        max_macs: A limit on the whole net: `0.5`, `"0.5x"` and `"50%"` of its own, or `"300M"`.
        max_latency: The same by measured time: `0.5`, `"0.5x"` or `"5ms"`.
        keep: Layers to leave alone.
        overrides: By layer, the block that it becomes whatever the others do.
        model: The trained module that a graph was captured from; needed with data and with a limit on latency.
        data: Unlabelled images, as `apply` takes them.
        images: How many of them are used.
        statistics: Moments of `calibrate`, to choose by instead.
        method: Whose errors choose; None for the best that each block knows.
        seed: Draws images and positions.
        latencies: Of `measure_latency`; measured here where they are not given.
        progress: Told how far the work is.
        prices: With data, a file that keeps what was worked out: a call that was stopped goes on from it.
        width: With data, whether groups of channels may be narrowed as well. None for yes where block is `auto` and
        latency is limited. Under a limit on MACs ranks lose less, so there only where ranks alone cannot meet it.
        depth: The same of units of a stage that may go.
        judged: With data, plans are carried out in short and judged by the output on images held out. With 1 these are
            the choice and those of fewer levers, and the best is taken. With more, neighbours of the best follow until
            about so many were judged, and tell prices anew. 0 takes the choice. None for 1 where channels or units may
            go, else 0.
        target: Where the net is to be fast, as `cs.Target.parse` takes it. Times are measured there, and so is the new
            net beside the old one. It keeps the limit and is not slower than the old one, or no plan is given.
        latency_file: With a target, where times of layers are kept for later calls; by default in the user's cache
            folder.

    Returns:
        A plan with one edit a replaced convolution, narrowed group or removed unit, and the reason why others stay.

    Raises:
        ConvsmithError: For an unknown block or layer, an override that cannot be, a limit that cannot be met, data
            without a model or a limit.

    >>> import convsmith as cs, torch
    >>> plan = cs.decompose(cs.capture(cs.build("vgg11", input=(3, 32, 32), classes=10), torch.zeros(1, 3, 32, 32)))
    >>> len(plan.edits), plan.edits[0].block, plan.edits[0].macs, plan.refusals[0]
    (7, 'dw-pw', (18874368, 2244608), Refusal(layer='features.0', reason='it is a stem with 3 input channels, ...'))
    """
    graph, model = graph_of(net, example), bare(net if isinstance(net, nn.Module) else model)
    aim = None if target is None else Target.parse(target)
    fits = data is not None or statistics is not None
    _check(max_macs, max_latency, fits, method, model, aim)
    if judged and data is None:
        raise PlanError("decompose: plans are judged by what they do to images; give data, or leave judged out.")
    if max_latency is not None and latencies is None and model is not None:
        latencies = measure_latency(model, graph, target=aim, file=latency_file, progress=progress)
    judge = None if aim is None or model is None else measured_in(aim, model, graph, latencies, latency_file, progress)
    asked = Request(
        block, share_of(max_macs, graph.macs), tuple(keep), _of_latency(max_latency, latencies), dict(overrides or {}),
        target=aim, width=fits and _allowed(width, block, max_latency),
        depth=data is not None and _allowed(depth, block, max_latency),
    )  # fmt: skip
    settle = as_planned if judge is None else judge.settle
    if not fits:
        plan = plan_by_cost(graph, asked, latencies, progress, settle)
        return plan if judge is None or plan.measured_ms else judge.held(judge.timed(plan))
    assert model is not None
    taken = None if data is None else take_images(data, images, seed, *form_of(graph))
    trained = Trained(model, graph, taken, method, statistics, seed, latencies, progress, prices)

    def planned(asked: Request) -> Plan:
        most = int(asked.width or asked.depth) if judged is None else judged
        return plan_by_error(trained, asked, settle, most)

    try:
        return planned(asked)
    except BudgetError:
        more = replace(asked, width=width is not False, depth=data is not None and depth is not False)
        if block != "auto" or more == asked:
            raise
    return planned(more)


def _allowed(asked: bool | None, block: str, max_latency: float | str | None) -> bool:
    """Whether channels or units may go: where that was asked, or a clock counts, which fewer of them serve best."""
    return (block == "auto" and max_latency is not None) if asked is None else asked


def _check(
    max_macs: float | str | None, max_latency: float | str | None, fits: bool, method: str | None, model: object,
    target: Target | None,
) -> None:  # fmt: skip
    """Refuse what would do nothing."""
    if max_macs is not None and max_latency is not None:
        raise PlanError("decompose: limit either MACs or latency; leave one of the two out.")
    if fits and max_macs is None and max_latency is None:
        raise PlanError("decompose: data chooses ranks under a limit; give max_macs or max_latency, or no data.")
    if fits and model is None:
        raise PlanError("decompose: data is fitted to a trained net; give model= beside the graph.")
    if method is not None and not fits:
        raise PlanError("decompose: a method fits weights to data; give data or statistics, or leave method out.")
    if target is not None and model is None:
        raise PlanError("decompose: the net is run in the target; give model= beside the graph.")


def _of_latency(limit: float | str | None, latencies: Latencies | None) -> float | None:
    if limit is None:
        return None
    if latencies is None:
        raise PlanError(
            "decompose: a limit on latency needs latencies; give model=, or those of cs.measure_latency(model, graph)."
        )
    return share_of(limit, latencies.total, "max_latency")
