"""The whole front of budgets from one pricing: plans from the cheapest to the net as it is, some of them measured."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import sqrt
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor, nn

from convsmith.calibration.calibrate import IMAGES, Images, form_of, take_images
from convsmith.data import UNLABELLED, Data
from convsmith.errors import PlanError
from convsmith.export import export
from convsmith.graph import Graph
from convsmith.graph.given import bare, graph_of
from convsmith.latency.latencies import Latencies
from convsmith.latency.measure import measure_latency
from convsmith.plan import Merge, Plan, Repeat, Request
from convsmith.planning.allocation import GRAIN, Priced
from convsmith.planning.by_error import Trained, price
from convsmith.progress import Progress, silent
from convsmith.rewriting.apply import rewrite
from convsmith.target import Target
from convsmith.train import evaluate

POINTS, MEASURED = 12, 4


@dataclass(frozen=True)
class Point:
    """One plan of a front.

    Attributes:
        limit: The share of the net's own cost that was allowed.
        plan: The plan of the least predicted error within it.
        top1: Top-1 on the test split once the plan is applied, in [0, 1]; None where it was not measured.
    """

    limit: float
    plan: Plan
    top1: float | None = None

    @property
    def macs(self) -> float:
        """The new net's MACs over the old one's."""
        return self.plan.new.macs / self.plan.base.macs

    @property
    def latency_ms(self) -> float | None:
        """The predicted time, where the front is of latency."""
        return self.plan.latency_ms[1] if self.plan.latency_ms else None

    @property
    def error(self) -> float:
        """The predicted relative error of the net's output: squared errors of edits add up."""
        return sqrt(sum((e.output_error or 0.0) ** 2 for e in self.plan.edits if not isinstance(e, Repeat | Merge)))


@dataclass(frozen=True)
class Front:
    """Plans from the cheapest to the dearest, beside the net as it is.

    Attributes:
        points: The plans; what costs more has less predicted error.
        top1: Of the net as it is, where it was measured.
        int8: Top-1 of its int8 file, where that was measured.
    """

    points: tuple[Point, ...]
    top1: float | None = None
    int8: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; every point has its plan as `apply` takes it."""
        first = self.points[0].plan
        return {
            "model": first.model,
            "base": asdict(first.base) | {"latency_ms": first.base_ms, "top1": self.top1, "int8_top1": self.int8},
            "points": [
                {
                    "limit": point.limit, "macs": point.plan.new.macs, "share": point.macs,
                    "latency_ms": point.latency_ms, "error": point.error, "top1": point.top1,
                    "plan": json.loads(point.plan.to_json()),
                }
                for point in self.points
            ],
        }  # fmt: skip


def front(
    net: Graph | nn.Module,
    example: Tensor | None = None,
    *,
    model: nn.Module | None = None,
    data: Images,
    block: str = "auto",
    points: int = POINTS,
    measured: int = MEASURED,
    int8: bool = False,
    keep: Sequence[str] = (),
    overrides: Mapping[str, str] | None = None,
    images: int = IMAGES,
    method: str | None = None,
    latencies: Latencies | None = None,
    seed: int = 0,
    progress: Progress = silent,
    prices: Path | None = None,
    target: Target | str | None = None,
    latency_file: Path | None = None,
    width: bool | None = None,
    depth: bool | None = None,
) -> Front:
    """Plan for a whole range of limits at once: layers are priced once, and each limit chooses among the prices.

    Args:
        net: A captured graph, or a module with an `example` input.
        example: An input (batch first) for a module.
        model: The trained module that a graph was captured from.
        data: Images as `decompose` takes them. Of a data set with labels, accuracy is measured on its test split.
        block: As `decompose` takes it.
        points: How many limits, evenly from the cheapest plan to the net as it is.
        measured: With labels, how many of the plans are applied and measured.
        int8: With labels, whether the net as it is is measured in 8-bit integers, too.
        keep: Layers to leave alone.
        overrides: By layer, the block that it becomes whatever the others do.
        images: How many images are used.
        method: Whose errors choose; None for the best that each block knows.
        latencies: Of `measure_latency`, for a front of latency; without them it is of MACs.
        seed: Draws images and positions.
        progress: Told how far the work is.
        prices: A file that keeps what was worked out: a call that was stopped goes on from it.
        target: Where time is measured, for a front of latency there.
        latency_file: With a target, where times of layers are kept.
        width: Whether groups of channels may be narrowed as well; None for yes where the front is of latency.
        depth: The same of units of a stage that may go.

    Returns:
        The plans, cheapest first, and accuracies where there are labels.

    Raises:
        ConvsmithError: For all that `decompose` and `rewrite` refuse, and where no plan costs less than the net.

    >>> import convsmith as cs, torch
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    >>> found = front(net, torch.zeros(1, 3, 12, 12), data=torch.rand(8, 3, 12, 12), points=3)
    >>> [point.plan.new.macs < point.plan.base.macs for point in found.points]
    [True, True, True]
    """
    graph, model = graph_of(net, example), bare(net if isinstance(net, nn.Module) else model)
    if model is None:
        raise PlanError("front: data is fitted to a trained net; give model= beside the graph.")
    aim = None if target is None else Target.parse(target)
    if aim is not None and latencies is None:
        latencies = measure_latency(model, graph, target=aim, file=latency_file, progress=progress)
    timed = latencies is not None
    asked = Request(
        block, None if timed else 1.0, tuple(keep), 1.0 if timed else None, dict(overrides or {}),
        width=timed if width is None else width, depth=timed if depth is None else depth, target=aim,
    )  # fmt: skip
    taken = take_images(data, images, seed, *form_of(graph))
    found = price(Trained(model, graph, taken, method, None, seed, latencies, progress, prices), asked)
    chosen = _points(found, asked, points)
    if not isinstance(data, Data) or data.classes == UNLABELLED or not len(data.test):
        return Front(chosen)
    which = {round(i * (len(chosen) - 1) / max(measured - 1, 1)) for i in range(measured)}
    told = []
    for number, point in enumerate(chosen):
        progress("applying plans", number, len(chosen))
        top1 = None
        if number in which:
            made = rewrite(model, point.plan, method=method, data=taken, images=images, seed=seed, progress=progress)
            top1 = evaluate(made.model, data.test, progress=progress).top1
        told.append(replace(point, top1=top1))
    own = evaluate(model, data.test, progress=progress).top1
    return Front(tuple(told), own, _int8(model, graph, data, images, seed, progress) if int8 else None)


def _points(found: Priced, asked: Request, count: int) -> tuple[Point, ...]:
    """Plans for limits from the least that can be met up; those that change nothing are left out."""
    least = found.least / found.costs.total
    limits = [least + (1 - least) * i / count for i in range(count)]
    grains = (len(found.levers.layers) + 1) / GRAIN  # what the rounding of costs takes of a limit, at most
    plans: list[Point] = []
    for limit in limits:
        share = limit * (1 + grains)
        plan = found.plan(replace(asked, max_latency=share) if asked.max_latency else replace(asked, max_macs=share))
        if plan.edits and not (plans and plans[-1].plan.edits == plan.edits):
            plans.append(Point(share, plan))
    if not plans:
        raise PlanError(f"front: no plan costs less than {found.graph.model} as it is; choose another block.")
    return tuple(plans)


def _int8(model: nn.Module, graph: Graph, data: Data, images: int, seed: int, progress: Progress) -> float | None:
    with TemporaryDirectory() as folder:
        shape = graph.inputs[0].shape[1:]
        path = Path(folder) / "net.onnx"
        check = export(model, path, input=shape, int8=data, images=images, seed=seed, progress=progress)
    return None if check.accuracy is None else check.accuracy.int8
