"""One call for a module in memory: plan, and carry the plan out with the weights fitted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from convsmith.calibration.calibrate import IMAGES, Images, form_of, take_images
from convsmith.calibration.pictures import Pictures
from convsmith.errors import ConvsmithError
from convsmith.graph import Graph
from convsmith.graph.given import graph_of
from convsmith.latency.latencies import Latencies
from convsmith.latency.measure import measure_latency
from convsmith.limits import share_of
from convsmith.plan import Plan, Replace
from convsmith.planning.decompose import decompose
from convsmith.planning.organize import organize as plan_stages
from convsmith.progress import Progress, silent
from convsmith.rewriting.apply import rewrite
from convsmith.target import Target


@dataclass(frozen=True, eq=False)
class Optimized:
    """A better model, and the plans that led to it, each on the model before it.

    Attributes:
        model: The new module.
        plans: The plans that were carried out, with the costs and errors that they attained.
    """

    model: nn.Module
    plans: tuple[Plan, ...]

    @property
    def plan(self) -> Plan:
        """The last of the plans."""
        return self.plans[-1]

    @property
    def errors(self) -> dict[str, float]:
        """By layer, the relative error of its responses, or without images that of its weight."""
        edits = [edit for plan in self.plans for edit in plan.edits if isinstance(edit, Replace)]
        return {edit.layer: edit.error for edit in edits if edit.error is not None}

    def __repr__(self) -> str:
        return f"Optimized({', '.join(map(repr, self.plans))})"


def optimize(
    model: nn.Module,
    example: Any,
    *,
    images: Images | None = None,
    max_macs: float | str | None = None,
    max_latency: float | str | None = None,
    block: str = "auto",
    organize: bool = False,
    keep: Sequence[str] = (),
    overrides: Mapping[str, str] | None = None,
    method: str | None = None,
    count: int = IMAGES,
    seed: int = 0,
    progress: Progress = silent,
    prices: Path | None = None,
    target: Target | str | None = None,
    latency_file: Path | None = None,
    refit_steps: int = 0,
) -> Optimized:
    """Make a better model of a copy of `model`, which stays as it is.

    Args:
        model: A module, trained or not.
        example: An input with a batch in front; its values do not matter.
        images: Unlabelled images (a tensor, a data set, or batches), of which `count` are taken. With them and a limit,
            layers and ranks are chosen by the error at the output; weights are fitted to them in any case. Without
            them weights alone decide.
        max_macs: A limit as `0.5`, `"0.5x"`, `"50%"` or `"300M"`.
        max_latency: The same by measured time, as `0.5`, `"0.5x"` or `"5ms"`.
        block: What `decompose` takes, or `none` to leave convolutions as they are.
        organize: Move units between stages first. With images units go that the trained net's output misses least, and
            new ones start as the identity, at no more MACs (with block none: within the limits). Without images the net
            has to be trained again.
        keep: Layers to leave alone.
        overrides: By layer, the block that it becomes.
        method: How weights are carried; None for the best that each block knows.
        count: How many of the images to take.
        seed: Draws images and positions.
        progress: Told how far the work is.
        prices: With images, a file that keeps what planning worked out: a call that was stopped goes on from it.
        target: Where the net is to be fast, as `decompose` takes it.
        latency_file: With a target, where times of layers are kept.
        refit_steps: With images, steps of a joint refit of all weights in the end, as `apply` takes them.

    Returns:
        The new module, and the plans that were carried out with the errors they attained.

    Raises:
        ConvsmithError: For all that planning and applying refuse, and where nothing is asked for.

    >>> import convsmith as cs, torch
    >>> new = cs.optimize(cs.build("vgg11", input=(3, 32, 32), classes=10), torch.zeros(1, 3, 32, 32), max_macs=0.5)
    >>> new.plan.new.macs <= 0.5 * new.plan.base.macs, len(new.errors)
    (True, 7)
    """
    if block == "none" and not organize:
        raise ConvsmithError("optimize: block none and no organizing leave nothing to do; ask for one of the two.")
    graph = graph_of(model, example)
    latencies = None
    if max_latency is not None:
        latencies = measure_latency(model, graph, target=target, file=latency_file, progress=progress)
    macs, seconds = _allowed(graph, max_macs, max_latency, latencies)
    taken = None if images is None else take_images(images, count, seed, *form_of(graph))
    net, plans = model, []
    if organize:
        plan = _stages(
            model, graph, taken, (macs, seconds) if block == "none" else (None, None), seed, progress, latencies
        )
        last = refit_steps if block == "none" else 0
        done = rewrite(
            net, plan, method=method, data=taken, images=count, seed=seed, refit_steps=last, progress=progress
        )
        net, plans = done.model, [done.plan]
        graph = graph_of(net, example)
    if block != "none":
        by_error = taken is not None and (macs is not None or seconds is not None)
        plan = decompose(
            graph, block=block, model=net, keep=keep, overrides=overrides, seed=seed, progress=progress, prices=prices,
            max_macs=None if macs is None else macs / graph.macs,
            max_latency=None if seconds is None else f"{seconds}s", images=count,
            data=taken if by_error else None, method=method if by_error else None,
            target=target, latency_file=latency_file, latencies=None if organize else latencies,
        )  # fmt: skip
        done = rewrite(
            net, plan, method=method, data=taken, images=count, seed=seed, refit_steps=refit_steps, progress=progress
        )
        net, plans = done.model, [*plans, done.plan]
    return Optimized(net, tuple(plans))


def _stages(
    model: nn.Module,
    graph: Graph,
    images: Pictures | None,
    limits: tuple[float | None, float | None],
    seed: int,
    progress: Progress,
    latencies: Latencies | None,
) -> Plan:
    """Where units go; those of a trained net by what images tell, within limits, or at no more MACs than it has."""
    if images is None:
        return plan_stages(graph)
    macs, seconds = limits
    return plan_stages(
        graph, model=model, data=images, seed=seed, progress=progress,
        max_macs=1.0 if macs is None else macs / graph.macs,
        max_latency=None if seconds is None else f"{seconds}s",
        latencies=None if seconds is None else latencies,
    )  # fmt: skip


def _allowed(
    graph: Graph, max_macs: float | str | None, max_latency: float | str | None, latencies: Latencies | None
) -> tuple[float | None, float | None]:
    """The limits in multiply-accumulates and in seconds, so that they mean the first model's all the way."""
    share = share_of(max_macs, graph.macs, "max_macs")
    if max_latency is None or latencies is None:
        return (None if share is None else share * graph.macs), None
    total = latencies.total
    return (None if share is None else share * graph.macs), (share_of(max_latency, total, "max_latency") or 0) * total
