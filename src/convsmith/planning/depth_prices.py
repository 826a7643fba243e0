"""What it costs the net's output to do without a unit, once the layers behind it have been refitted."""

from collections.abc import Sequence

from torch import nn

from convsmith.calibration.in_order import Calibration
from convsmith.calibration.pictures import Pictures
from convsmith.calibration.refitting import behind, place_of, refit_in_order
from convsmith.graph import Graph
from convsmith.graph.plain import copied
from convsmith.planning.prices import Prices
from convsmith.planning.pricing import Effect
from convsmith.structure.stages import find_stages
from convsmith.structure.units import Unit, calls_inside, find_units, movable

# Images to refit on while units are compared, and convolutions behind a unit that are: the first few mend most.
# Eight mend more than four that are refitted for the ReLUs behind them too, in less time.
IMAGES, MENDED = 128, 8


def removable(graph: Graph, keep: Sequence[str]) -> list[tuple[str, Unit]]:
    """The units of equal shape that a net can do without, each with the name of its stage."""
    stages = find_stages(graph, graph.reaches())
    units, _ = find_units(graph, stages)
    found = []
    for stage, each in zip(stages.stages, units, strict=True):
        for unit in each:
            inside = {node.module for node in calls_inside(graph, unit.modules)}
            if unit.uniform and not inside.intersection(keep) and isinstance(movable(graph, unit.modules), Unit):
                found.append((stage.name, unit))
    return found


def without(
    model: nn.Module, graph: Graph, unit: Unit, images: Pictures, effect: Effect, prices: Prices, seed: int
) -> float:
    """The squared relative error of the net's output without a unit, some layers behind it solved anew."""

    def price() -> tuple[float, float]:
        changed = copied(model)
        calibration = Calibration(model, changed, images[:IMAGES], seed=seed, removed=[unit.modules])
        for layer in behind(graph, place_of(graph, unit.modules), calibration.order)[:MENDED]:
            refit_in_order(changed, graph, layer, calibration, relu=False)
        lost = effect.without([unit.modules], changed)
        return lost, lost

    return prices.output(" + ".join(unit.modules), "remove", price)
